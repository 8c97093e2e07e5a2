"""The release of synfer-rt that this environment has, run as `sample` runs it by default."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

TELLS = ("bundle",)
"""What `load` tells, beside what all systems tell."""


def load(versions: Sequence[str], threads: int, **_: Any) -> Release:
    """The release with its own bundle and its own defaults, on so many CPU threads."""
    installed = [name for name in versions if _is_installed(name)]
    runtime = ", ".join(f"{name} {version(name)}" for name in installed)
    import synfer_rt

    if hasattr(synfer_rt, "load"):
        return Release(runtime, _from_python(synfer_rt.load(threads=threads)))
    return Release(runtime, _by_command(threads))


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except ImportError:  # PackageNotFoundError
        return False
    return True


Write = Callable[[Path, int, int], tuple[float, Mapping[str, float]]]
"""Writes so many images, so many at once, into a new directory: seconds, and those by stage."""


def _from_python(model: Any) -> Write:
    def write(out: Path, count: int, batch: int) -> tuple[float, Mapping[str, float]]:
        made = model.write(out, count=count, batch=batch).summary
        times = dataclasses.asdict(made.times)
        return sum(times.values()), times

    return write


def _by_command(threads: int) -> Write:
    """A release before `synfer_rt.load` has only its command, which loads the engines each time.

    So a batch more is written than asked for, and the time of one batch is taken off again.
    """
    (command,) = entry_points(group="console_scripts", name="synfer-rt")
    main: Any = command.load()

    def seconds(out: Path, count: int, batch: int) -> float:
        began = time.perf_counter()
        arguments = ("sample", "--count", count, "--batch", batch, "--threads", threads)
        main([str(word) for word in (*arguments, "--out", out)], standalone_mode=False)
        return time.perf_counter() - began

    def write(out: Path, count: int, batch: int) -> tuple[float, Mapping[str, float]]:
        whole = seconds(out, count + batch, batch)
        one = seconds(out.with_name("one"), batch, batch)
        shutil.rmtree(out.with_name("one"))
        return max(whole - one, 1e-9), {}

    return write


class Release:
    """A release that writes images, and the directory of its bundle."""

    def __init__(self, runtime: str, write: Write) -> None:
        from synfer_rt.engines import default_bundle

        self._write = write
        self.bundle = str(default_bundle())
        self.ran = {"runtime": runtime, "precision": "its own", "device": "its own"}
        self.notes = ["runs `sample` with its own bundle and defaults"]

    def run(self, count: int, batch: int, out: str, **_: Any) -> dict[str, Any]:
        """Write `count` images, `batch` at once, into `out`/run; returns `total` and `stages`."""
        total, stages = self._write(Path(out) / "run", count, batch)
        return {"total": total, "stages": {k: v for k, v in stages.items() if k != "other"}}
