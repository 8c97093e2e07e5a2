"""What native code prints while something is tried is caught, and appears nowhere."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from synfer_rt.backends.native_output import caught_output


def test_what_is_written_past_python_is_caught_and_the_rest_appears(
    capfd: pytest.CaptureFixture[str],
) -> None:
    os.write(1, b"before ")
    with caught_output() as caught:
        os.write(1, b"\x1b[1;31mred\x1b[m out ")
        os.write(2, b"err ")
        print("python")
        print("python too", file=sys.stderr)
    os.write(1, b"after")
    os.write(2, b"error")
    assert capfd.readouterr() == ("before after", "error")
    for word in ("red out err", "python\n", "python too\n"):
        assert word in caught.text
    assert "\x1b" not in caught.text


def test_an_exception_comes_through_and_the_streams_are_as_before(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match="inside"), caught_output() as caught:
        os.write(2, b"noise")
        raise ValueError("inside")
    os.write(2, b"error")
    assert caught.text == "noise"
    assert capfd.readouterr().err == "error"


def test_what_was_printed_before_is_not_swallowed_and_closed_streams_do_no_harm() -> None:
    code = (
        "import os, sys\n"
        "from synfer_rt.backends.native_output import caught_output\n"
        "print('waiting', end=' ')\n"  # in a pipe Python keeps it back
        "os.close(2)\n"
        "with caught_output() as caught: os.write(1, b'noise')\n"
        "print(caught.text.upper())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "waiting NOISE\n"
