"""What a command says beside its results, on stderr: that nobody hears it is no reason to stop."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress

import click

from synfer_rt.commands.translation import in_current_options

_JOBS = logging.getLogger("synfer_rt.jobs")


def note(text: str) -> None:
    """Say something on stderr, with its arguments as options of the command that runs.

    Once stderr takes nothing (a pipe without a reader), all is dropped.
    """
    try:
        click.echo(in_current_options(text), err=True)
    except OSError:
        # What could not be written waits in the stream, and would fail again when Python ends.
        with suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stderr.fileno())


@contextmanager
def noting_logs() -> Generator[None]:
    """Within the block the remarks and warnings that jobs log are notes."""
    handler = _Notes()
    before = _JOBS.level, _JOBS.propagate
    _JOBS.addHandler(handler)
    _JOBS.setLevel(logging.INFO)
    _JOBS.propagate = False
    try:
        yield
    finally:
        _JOBS.removeHandler(handler)
        _JOBS.level, _JOBS.propagate = before


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warning = "Warning: " if record.levelno >= logging.WARNING else ""
        note(f"{warning}{record.getMessage()}")
