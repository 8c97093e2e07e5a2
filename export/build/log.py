"""The build log: what was done, the exporters' warnings, and how the build ended."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

import synfer_rt

LOG = logging.getLogger("synfer_rt.export")

_SOURCES = (
    LOG.name,
    *("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir"),
    "py.warnings",
)
"""The loggers of torch do not pass records on to each other."""


class _File(logging.FileHandler):
    """A log file that drops lines which cannot be written.

    logging would print a traceback for each of them; on a full disk the build itself raises an
    error with one sentence.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Close the file, even if the last lines cannot be written."""
        with suppress(OSError):
            super().close()


@contextmanager
def build_log(file: Path) -> Iterator[None]:
    """Append to `file` what this package and the exporters log or warn, instead of printing it.

    Several processes may write alternate lines; each line stays whole.
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


@contextmanager
def log_of(file: Path, libraries: Sequence[str]) -> Iterator[None]:
    """Log to `file` versions of `libraries`, what the block does, and the error that ends it."""
    with build_log(file):
        versions = {name: metadata.version(name) for name in libraries}
        LOG.info("synfer-rt %s, %s", synfer_rt.__version__, versions)
        try:
            yield
        except BaseException:
            LOG.exception("the build failed")
            raise


def to_stderr(sentence: str) -> None:
    """Print a remark."""
    print(sentence, file=sys.stderr)
