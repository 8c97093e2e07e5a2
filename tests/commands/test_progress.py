"""The progress display, and tables."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import synfer_rt
from synfer_rt import backends
from synfer_rt.commands import progress
from synfer_rt.commands.progress import ProgressBar
from synfer_rt.jobs.progress import Progress


def test_elsewhere_than_on_a_terminal_it_is_plain_lines(capsys, monkeypatch):
    now = iter([0.0, 2.0, 5.0, 7.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with ProgressBar() as show:
        for images in (40, 50, 60, 70, 80):
            show(Progress(images, 100, before=40))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "60 of 100 images, 4.0 images/s, 10 s left",
        "80 of 100 images, 4.0 images/s, 5 s left",
    ]


def test_long_times_are_told_in_hours(capsys, monkeypatch):
    now = iter([0.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with ProgressBar() as show:
        for images in (0, 100):
            show(Progress(images, 73_000))
    assert capsys.readouterr().err.endswith("2.02 h left\n")


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX terminal")
def test_on_a_terminal_it_is_a_bar():
    import pty

    code = (
        "import time\n"
        "from synfer_rt.commands.progress import ProgressBar\n"
        "from synfer_rt.jobs.progress import Progress\n"
        "with ProgressBar() as show:\n"
        "    show(Progress(0, 100)); time.sleep(0.1); show(Progress(50, 100)); time.sleep(0.3)\n"
    )
    master, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    subprocess.run([sys.executable, "-c", code], stderr=terminal, env=environment, check=True)
    os.close(terminal)
    drawn = os.read(master, 100_000).decode()
    os.close(master)
    assert "━" in drawn and "50/100" in drawn and "images/s" in drawn and "left" in drawn


def piped(*command: str) -> str:
    """What a command writes to a pipe, started from a terminal of 40 columns."""
    command = (sys.executable, "-m", "synfer_rt", *command)
    environment = os.environ | {"COLUMNS": "40"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout


def test_a_piped_table_keeps_each_row_on_one_line():
    said = piped("doctor")
    for status in backends.statuses():
        (row,) = (line for line in said.splitlines() if line.split()[:1] == [status.name])
        assert status.works or (status.reason in row and status.remedy in row)


def test_a_piped_table_cuts_no_column(tiny_bundle_path, tiny_bundle):
    said = piped("inspect", str(tiny_bundle_path))
    assert "…" not in said
    (about,) = (line for line in said.splitlines() if line.split()[:1] == ["schedule"])
    assert all(
        f"{name} {value}" in about for name, value in tiny_bundle.manifest["schedule"].items()
    )


def test_every_command_writes_its_tables_to_that_console():
    root = Path(synfer_rt.__file__).parents[1]
    own = re.compile(r"\bConsole\((?!stderr=True|file=text)")
    for folder in ("synfer_rt", "export", "bench"):
        for file in (root / folder).rglob("*.py"):
            if file.name != "progress.py":
                assert not own.search(file.read_text()), f"{file} has a console of its own"
