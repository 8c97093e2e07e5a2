"""Parts of a benchmark, each in a process of its own that may fail or be stopped alone.

A section is a generator function. What it yields is kept, also if it fails later or its time is up.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from synfer_rt.errors import UserError
from synfer_rt.fresh_processes import leave_signals_to_the_parent

_PATIENCE = 5.0
"""Seconds that a process has to end by itself."""


@dataclass(frozen=True)
class Outcome:
    """What a section yielded in `seconds`; `problem` says why it ended early, None if it did not.

    A problem is the middle of a sentence. `stopped` says that the problem was the time.
    """

    rows: list[Any] = field(default_factory=list)
    problem: str | None = None
    seconds: float = 0.0
    stopped: bool = False


def run(
    section: Callable[..., Iterator[Any]], *arguments: Any, seconds: float | None = None
) -> Outcome:
    """Run `section(*arguments)` in a fresh process, for at most `seconds`.

    Section, arguments and rows are pickled. A process that is killed, most likely because memory
    ran out, is a problem of the outcome as any exception is; so is one whose time is up.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, section, arguments))
    started = time.monotonic()
    process.start()
    sender.close()
    rows: list[Any] = []
    stopped = True
    try:
        problem, stopped = _receive(receiver, process, rows, seconds)
    finally:
        if stopped:
            process.terminate()
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
        receiver.close()
    return Outcome(rows, problem, time.monotonic() - started, stopped)


def _receive(
    receiver: Connection, process: BaseProcess, rows: list[Any], seconds: float | None
) -> tuple[str | None, bool]:
    """Collect rows until the section ends or its time is up: the problem, and if that is time."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        if not receiver.poll(left):
            return f"it was stopped after {seconds:.0f} s", True
        try:
            kind, value = receiver.recv()
        except EOFError:
            process.join()
            return (
                f"its process was killed (exit code {process.exitcode}), most likely because "
                "memory ran out; leave that size out of `batch`",
                False,
            )
        if kind == "end":
            return value, False
        rows.append(value)


def _work(sender: Connection, section: Callable[..., Iterator[Any]], arguments: Any) -> None:
    """In the process: send each row, then the problem or None."""
    leave_signals_to_the_parent()
    with suppress(OSError):  # what runtimes print must not get into the result of the command
        sys.stdout.flush()
        os.dup2(2, 1)
    problem = None
    try:
        for row in section(*arguments):
            sender.send(("row", row))
    except UserError as error:
        problem = str(error).rstrip(".")
    except Exception as error:  # whatever a runtime raises is the end of its section alone
        said = str(error).strip().split("\n")[0].rstrip(".")
        problem = f"{type(error).__name__}: {said}" if said else type(error).__name__
    sender.send(("end", problem))
    sender.close()
