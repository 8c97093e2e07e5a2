"""What a command says beside its results, on stderr: that nobody hears it is no reason to stop."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from synfer_rt.commands.translation import in_current_options


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
