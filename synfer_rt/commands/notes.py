"""Notes on stderr beside a command's results; a closed stderr does not stop the command."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress

import click

from synfer_rt.commands.translation import in_current_options

_LOGS = tuple(map(logging.getLogger, ("synfer_rt.jobs", "synfer_rt.backends")))


def note(text: str) -> None:
    """Write `text` to stderr, with its arguments as options of the command that runs.

    Once stderr cannot be written to (a pipe without a reader), notes are dropped.
    """
    try:
        click.echo(in_current_options(text), err=True)
    except OSError:
        # The stream still holds what it could not write, and would fail again when Python ends.
        with suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stderr.fileno())


@contextmanager
def noting_logs() -> Generator[None]:
    """Within the block the remarks and warnings that jobs and backends log are notes."""
    handler = _Notes()
    before = [(log.level, log.propagate) for log in _LOGS]
    for log in _LOGS:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    try:
        yield
    finally:
        for log, (level, propagate) in zip(_LOGS, before, strict=True):
            log.removeHandler(handler)
            log.setLevel(level)
            log.propagate = propagate


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warning = "Warning: " if record.levelno >= logging.WARNING else ""
        note(f"{warning}{record.getMessage()}")
