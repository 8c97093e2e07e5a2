"""Which requests the server answers."""

from __future__ import annotations

import pytest

from synfer_rt.studio.origins import is_foreign, is_loopback, is_own


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_is_this_machine_alone(host: str):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "lab-7", ""])
def test_anything_else_is_open_to_others(host: str):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "192.168.1.5", "lab-7:80"],
)
def test_addresses_and_own_names_are_answered(host: str):
    assert is_own(host, ["Lab-7"])


@pytest.mark.parametrize(
    "host",
    [
        *(None, "", ":7860", "evil.example", "evil.example:7860", "127.0.0.1.evil.example"),
        *("localhost.evil.example", "me@127.0.0.1", "[::1", "lab-7/x", "1.2.3.4?", "lab-8"),
    ],
)
def test_a_name_that_was_pointed_here_is_not_answered(host: str | None):
    assert not is_own(host, ["lab-7"])


HERE = {"host": "127.0.0.1:7860"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ],
    ids=str,
)
def test_the_own_page_and_what_is_no_browser_are_not_foreign(headers: dict[str, str]):
    assert not is_foreign(HERE | headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:7860"},
        {"origin": "http://127.0.0.1:7861"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "cross-site"},
    ],
    ids=str,
)
def test_another_origin_is_foreign(headers: dict[str, str]):
    assert is_foreign(HERE | headers)
