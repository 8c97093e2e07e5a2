"""The progress display."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from synfer_rt.commands import progress
from synfer_rt.commands.progress import Progress


def test_elsewhere_than_on_a_terminal_it_is_plain_lines(capsys, monkeypatch):
    now = iter([0.0, 2.0, 5.0, 7.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with Progress(40, 100) as shown:
        for images in (50, 60, 70, 80):
            shown.update(images)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "60 of 100 images, 4.0 images/s, 0:10 left",
        "80 of 100 images, 4.0 images/s, 0:05 left",
    ]


def test_long_times_are_told_in_hours(capsys, monkeypatch):
    now = iter([0.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with Progress(0, 73_000) as shown:
        shown.update(100)
    assert capsys.readouterr().err.endswith("2:01:30 left\n")


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX terminal")
def test_on_a_terminal_it_is_a_bar():
    import pty

    code = (
        "import time; from synfer_rt.commands.progress import Progress\n"
        "with Progress(0, 100) as shown:\n"
        "    time.sleep(0.1); shown.update(50); time.sleep(0.3)\n"
    )
    master, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    subprocess.run([sys.executable, "-c", code], stderr=terminal, env=environment, check=True)
    os.close(terminal)
    drawn = os.read(master, 100_000).decode()
    os.close(master)
    assert "━" in drawn and "50/100" in drawn and "images/s" in drawn and "left" in drawn
