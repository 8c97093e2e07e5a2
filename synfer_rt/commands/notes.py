"""What a command says beside its results, on stderr: that nobody hears it is no reason to stop."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click


def note(text: str) -> None:
    """Say something on stderr. Once it takes nothing (a pipe without a reader), all is dropped."""
    try:
        click.echo(text, err=True)
    except OSError:
        # What could not be written waits in the stream, and would fail again when Python ends.
        with suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stderr.fileno())
