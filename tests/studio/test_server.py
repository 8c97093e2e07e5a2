"""The web server, asked over a socket."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.commands.cli import _missing
from synfer_rt.errors import UserError
from synfer_rt.studio import server
from synfer_rt.studio.server import Studio, open_studio
from tests.studio.long_image import LongImage
from tests.studio.test_photos import picture

FILES = ("", "index.html", "base.css", "studio.css", "line.js", "units.js", "studio.js")


class Client:
    """Asks a studio as a browser with no page does, or with other headers."""

    def __init__(self, studio: Studio) -> None:
        self.host = urlsplit(studio.address).netloc

    def ask(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON or bytes, and headers of an answer."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = HTTPConnection(self.host, timeout=20)
        connection.request("POST" if body is not None else "GET", path, content, headers or {})
        response = connection.getresponse()
        content, said = response.read(), {k.lower(): v for k, v in response.getheaders()}
        connection.close()
        is_json = said.get("content-type") == "application/json"
        return response.status, json.loads(content) if is_json else content, said


@pytest.fixture(scope="module")
def client(studio: Studio) -> Client:
    return Client(studio)


def test_only_this_machine_reaches_it(studio: Studio):
    assert studio.address.startswith("http://127.0.0.1:")
    assert studio._socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("name", FILES)
def test_the_page_asks_this_server_alone(name: str, client: Client):
    status, content, headers = client.ask(f"/{name}")
    assert status == 200 and content
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert "http" not in policy and "unsafe" not in policy
    assert b"//" not in content.replace(b"// ", b"")  # no address of another host


@pytest.mark.parametrize("path", ["/../server.py", "/%2e%2e/server.py", "/page", "/photos", "/x"])
def test_nothing_else_is_there(path: str, client: Client):
    assert client.ask(path)[0] == 404


def test_an_image_comes_with_what_is_seen_in_it(client: Client):
    status, answer, _ = client.ask("/image", {"label": "happy", "aus": {"AU12": 0.9}})
    assert status == 200 and answer["label"] == "happy" and answer["notes"] == []
    assert base64.b64decode(answer["image"].split(",")[1]).startswith(b"\x89PNG")
    assert answer["read"]["AU12"] > 0.4


def test_a_photo_is_uploaded_and_started_from(client: Client):
    status, photo, _ = client.ask("/photo?align=false", picture(), {"x-file-name": "m%C3%A9.png"})
    assert status == 200 and photo["name"] == "mé.png"
    assert "distorted" in photo["notes"][0]  # it is noise, no face
    state = {"label": "sad", "photo": photo["key"], "steps": 2}
    assert client.ask("/image", state)[0] == 200
    status, texts, _ = client.ask("/copies", state)
    assert status == 200 and "--layout-from mé.png" in texts["command"].replace("'", "")


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/image", b"{", "must be JSON"),
        ("/image", b"[" * 50_000, "must be JSON"),
        ("/image", b"\xff\xfe", "must be JSON"),
        ("/image", [1], "must be a JSON object"),
        ("/image", {"label": "hapy"}, "Unknown label 'hapy'"),
        ("/image", {"label": "happy", "aus": {"AU12": 2}}, "from 0 to 1"),
        ("/image", {"label": "happy", "photo": "../x"}, "choose its file again"),
        ("/image", {"label": "happy", "prompt": "x" * 200_000}, "too large"),
        ("/copies", {"label": "happy", "seed": "1"}, "`seed`"),
        ("/photo", b"no image", "format is unknown"),
        ("/photo", b"", "format is unknown"),
    ],
)
def test_bad_input_is_one_sentence(path: str, body: Any, sentence: str, client: Client):
    status, answer, _ = client.ask(path, body)
    assert status == 400 and sentence in answer["error"] and "\n" not in answer["error"]
    assert client.ask("/controls")[0] == 200  # it goes on


def test_a_request_that_nobody_awaits_is_broken_off(
    studio: Studio, client: Client, monkeypatch: pytest.MonkeyPatch
):
    image = LongImage()
    monkeypatch.setattr(studio._maker, "make", image)
    with closing(HTTPConnection(client.host)) as connection:
        connection.request("POST", "/image", json.dumps({"label": "happy"}))
        assert image.begun.wait(5) and not image.ended.is_set()
    assert image.ended.wait(5)


@pytest.mark.parametrize(("stage", "status"), [(0.01, 204), (1.3, 503)])
def test_a_signal_breaks_off_the_image_under_way(stage: float, status: int):
    """The server ends after the stage, answers who waits, and leaves no files and no traceback."""
    command = [sys.executable, "-m", "tests.studio.long_image", str(stage)]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    found = json.loads(done.stdout)
    assert found == {"statuses": [status], "interrupted": True, "ended": True, "stays": False}


def test_an_upload_is_not_read_beyond_its_limit(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "MOST_BYTES", 1000)
    status, answer, _ = client.ask("/photo", bytes(2000))
    assert status == 400 and "choose a photo of at most" in answer["error"]


def test_a_name_that_was_pointed_here_is_refused(client: Client):
    for path in ("/", "/controls", "/studio.js"):
        assert client.ask(path, headers={"Host": "evil.example"})[0] == 421


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}], ids=str
)
def test_a_page_of_another_site_is_refused(headers: dict[str, str], client: Client):
    for path, body in (("/image", {"label": "happy"}), ("/photo", picture()), ("/controls", None)):
        assert client.ask(path, body, headers)[0] == 403
    assert client.ask("/", headers=headers)[0] == 200  # a link leads to the page


def test_how_it_is_opened_is_checked(engines: LoadedEngines):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"`port` {port} .*choose another"):
            Studio(engines, port=port)
    with pytest.raises(UserError, match="cannot listen on `host` no such host"):
        Studio(engines, "no such host", 0)
    with pytest.raises(UserError, match="`port` must be"):
        open_studio(port=70_000)
    with pytest.raises(UserError, match="`threads` must be from 1 to 1024"):
        open_studio(threads=5000, port=0)


def test_without_the_extra_a_sentence_says_what_to_install():
    error = _missing("studio", ModuleNotFoundError("no", name="starlette.routing"))
    assert "needs the package starlette" in str(error) and "'.[studio]'" in str(error)
