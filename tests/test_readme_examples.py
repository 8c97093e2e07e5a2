"""The examples of the README and of docs/examples.md, run in their order (`pytest -m slow`)."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import click
import pytest

from synfer_rt.commands.cli import main

ROOT = Path(__file__).resolve().parents[1]


def examples() -> list[str]:
    """The commands of both pages: the indented lines that follow a heading and a sentence."""
    pages = (ROOT / "README.md", ROOT / "docs" / "examples.md")
    lines = [line for page in pages for line in page.read_text().splitlines()]
    return [line.strip() for line in lines if re.match(r" {4}synfer-rt ", line)]


def test_there_is_an_example_of_every_command():
    shown = {shlex.split(line, comments=True)[1] for line in examples()}
    commands = {*main.list_commands(click.Context(main))}
    assert shown == commands - {"verify-engines"}  # which needs OpenVINO


@pytest.mark.slow
def test_the_examples_run_in_their_order(tmp_path: Path):
    for line in examples():
        words = shlex.split(line, comments=True)[1:]
        call = [sys.executable, "-m", "synfer_rt", *words]
        how = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
        if words == ["studio"]:
            assert served([*call, "--port", "0"], **how) == 128 + signal.SIGTERM
            continue
        done = subprocess.run(call, capture_output=True, text=True, **how)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def served(call: list[str], **how: Any) -> int:
    """The exit code of a command that serves a page, ended by a signal once the page is there."""
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True, **how) as server:
        assert server.stdout is not None
        address = re.search(r"http://[\d.:]+/", server.stdout.readline())
        assert address and b"<title>" in urlopen(address[0], timeout=60).read()
        server.send_signal(signal.SIGTERM)
        return server.wait(timeout=60)
