"""What synfer-rt logs, kept for those who are to read it elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

Remark = tuple[int, str]
"""The level and the text of what was logged."""


@contextmanager
def kept_log() -> Generator[list[Remark]]:
    """What synfer-rt logs within the block, from INFO on, as it is said."""
    said: list[Remark] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: said.append((record.levelno, record.getMessage()))
    log = logging.getLogger("synfer_rt")
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield said
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
