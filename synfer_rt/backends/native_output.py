"""What native libraries print, caught so that it neither litters a terminal nor gets lost."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Caught:
    """`text` is what was printed, once the block has ended."""

    text: str = ""


@contextmanager
def caught_output() -> Generator[Caught]:
    """Within the block nothing that is printed appears, by Python or by native code.

    Native code writes to the file descriptors 1 and 2 of the process, so what other threads print
    in the meantime is caught, too.
    """
    caught, printed = Caught(), io.StringIO()
    with tempfile.TemporaryFile() as file:
        _flush()
        copies = {number: copy for number in (1, 2) if (copy := _copied(number)) is not None}
        try:
            for number in copies:
                os.dup2(file.fileno(), number)
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                yield caught
        finally:
            for number, copy in copies.items():
                os.dup2(copy, number)
                os.close(copy)
            file.seek(0)
            native = file.read().decode(errors="replace")
            caught.text = _COLOURS.sub("", printed.getvalue() + native)


def _copied(number: int) -> int | None:
    """A copy of a file descriptor; None if it is closed."""
    try:
        return os.dup(number)
    except OSError:
        return None


def _flush() -> None:
    """Write what is waiting to the terminal, which would be caught otherwise."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None if it was closed from the start
        with suppress(OSError, ValueError):
            stream.flush()
