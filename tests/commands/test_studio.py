"""The command `studio`, without what it serves."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

pytest.importorskip("starlette", reason="the studio needs synfer-rt[studio]")
pytest.importorskip("uvicorn", reason="the studio needs synfer-rt[studio]")

from synfer_rt.commands.cli import main
from synfer_rt.studio.server import Studio


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of the studios that would have been served."""
    addresses: list[str] = []
    monkeypatch.setattr(Studio, "warm", lambda studio: None)
    monkeypatch.setattr(Studio, "run", lambda studio: addresses.append(studio.address))
    return addresses


def test_it_says_where_the_page_is(served: list[str]):
    done = CliRunner().invoke(main, ["studio", "--port", "0"], catch_exceptions=False)
    (address,) = served
    assert done.exit_code == 0 and address in done.stdout and "Warning" not in done.output
    assert address.startswith("http://127.0.0.1:")


def test_opening_it_to_others_is_warned_of(served: list[str]):
    done = CliRunner().invoke(main, ["studio", "--host", "0.0.0.0", "--port", "0"])
    assert done.exit_code == 0 and served
    assert "without a password" in done.output and "--host" in done.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--port", "70000"], "--port must be"),
        (["--host", "no such host"], "cannot listen on --host no such host"),
        (["--backend", "none"], "backend"),
        (["--threads", "0"], "--threads must be"),
        (["--engines", "nowhere"], "nowhere"),
    ],
)
def test_an_option_that_does_not_fit_is_one_sentence(options: list[str], sentence: str):
    done = CliRunner().invoke(main, ["studio", *options])
    assert done.exit_code == 2 and sentence in done.output
