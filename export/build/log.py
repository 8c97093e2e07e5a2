"""The build log: what was done, what the exporters remarked, and how it ended."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOG = logging.getLogger("synfer_rt.export")

_SOURCES = (
    LOG.name,
    *("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir"),
    "py.warnings",
)
"""Those of torch pass nothing on to each other."""


class _File(logging.FileHandler):
    """Leaves out what cannot be written: of a full disk the build itself says so, in a sentence.

    logging would print a traceback of its own for each line.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Close the file, with or without the lines that wait to be written."""
        with suppress(OSError):
            super().close()


@contextmanager
def build_log(file: Path) -> Iterator[None]:
    """Append to `file` what this package and the exporters log or warn, instead of printing it.

    Lines of several processes may alternate, each stays whole.
    """
    if any(getattr(handler, "baseFilename", None) == str(file) for handler in LOG.handlers):
        yield
        return
    handler = _File(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in _SOURCES]
    before = [(logger.level, logger.propagate, logger.handlers[:]) for logger in loggers]
    for logger in loggers:
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if logger is LOG else logging.WARNING)
    try:
        with warnings.catch_warnings():
            logging.captureWarnings(True)
            yield
    finally:
        logging.captureWarnings(False)
        for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        handler.close()
