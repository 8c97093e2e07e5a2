"""Signals that end a command: it stops, keeps what is finished, and says how to continue."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Sent by the keyboard, by a program that ends jobs, and by a terminal that closes."""
_came: int | None = None
"""The first signal that came."""
_ONE_WISH = 0.5
"""Seconds in which further signals count as the first one: shells, systemd and wrappers send
several at once."""


class Interrupted(KeyboardInterrupt):
    """One of SIGNALS has come."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = _exit_code(number)


def exit_code(interruption: KeyboardInterrupt) -> int:
    """What a command exits with after an interruption: 128 and the signal, as shells count."""
    default = _exit_code(signal.SIGINT)
    return interruption.exit_code if isinstance(interruption, Interrupted) else default


@contextmanager
def interrupted_by_signals() -> Generator[None]:
    """Within the block the first of SIGNALS raises Interrupted; another ends the process at once.

    Signals that are ignored (`nohup`, jobs in the background) stay so. Not in a thread, where
    Python handles no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _came
    _came = None
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {n: handler for n, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    watched, told = socket.socketpair()
    told.setblocking(False)
    threading.Thread(target=_end_at_the_second, args=(watched,), daemon=True).start()
    former = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    for number in before:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        if _came is None:  # else the process is about to end, and may be told to hurry
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(former)
            told.close()


def raise_if_swallowed() -> None:
    """Raise Interrupted if a signal has come: to be called wherever a command is, again and again.

    Some code keeps the exception to itself that a signal raises in it: that of extension modules
    while they are imported, destructors, callbacks.
    """
    if _came is not None:
        raise Interrupted(_came)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _came
    if _came is None:
        _came = number
        raise Interrupted(number)


def _end_at_the_second(watched: socket.socket) -> None:
    """Read the numbers of signals as they come, even while the main thread is in a long call."""
    first = math.inf
    with watched:
        while number := watched.recv(1):
            if number[0] in SIGNALS:
                now = time.monotonic()
                if now - first > _ONE_WISH:
                    os._exit(_exit_code(number[0]))
                first = min(first, now)


@contextmanager
def going_on(how: Callable[[], str]) -> Generator[None]:
    """Within the block an interruption gets the note `how()`, which the command prints."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        interruption.add_note(how())
        raise


def _exit_code(number: int) -> int:
    return 128 + number
