"""Real runs of `synfer-rt sample` that faults are done to: who makes them, where, and what is seen.

A fault is a function that disturbs a `Scene` and returns how often. It leaves the scene so that its
commands, run once more, should complete the dataset.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from synfer_rt.data.writers import FORMATS, run_file
from synfer_rt.jobs.run_status import run_status

_LONGEST = 600.0
"""Seconds after which a process that should have ended is no longer waited for."""


class ImpossibleError(Exception):
    """The fault cannot be made on this machine."""


class Disk:
    """Where runs are made: here, on this disk, by processes of this machine.

    Its kinds say how a run is made elsewhere, and bring it here.
    """

    looks = 0.005
    """Seconds between two looks at the files of a run."""

    def address(self, out: Path) -> str:
        """What the processes of the run in `out` are given as `--out`."""
        return str(out)

    def options(self) -> tuple[str, ...]:
        """Options that all processes have."""
        return ()

    def environment(self) -> dict[str, str]:
        """The environment variables of all processes."""
        return dict(os.environ)

    def fetch(self, out: Path) -> None:
        """Bring the run to `out`, if it is elsewhere."""

    def traces(self, out: Path) -> dict[str, int]:
        """The files of the run at the top of its two folders, with their sizes."""
        sizes: dict[str, int] = {}
        for folder in out, run_file.folder(out):
            for path in folder.glob("*"):
                try:
                    sizes[str(path)] = path.stat().st_size
                except FileNotFoundError:  # renamed meanwhile
                    continue
        return sizes


@contextmanager
def on_disk() -> Generator[Disk]:
    """This disk, for as long as the block."""
    yield Disk()


@dataclass(frozen=True)
class Driver:
    """A way to make a run: the options of each process at once, and those that all have.

    Its runs are made at `place`, in these formats, and the faults of these names are done to them.
    `means` says what its name does not.
    """

    name: str
    processes: tuple[tuple[str, ...], ...]
    faults: tuple[str, ...]
    settings: tuple[str, ...] = ()
    means: str = ""
    place: Callable[[], AbstractContextManager[Disk]] = on_disk
    formats: tuple[str, ...] = FORMATS


@dataclass(frozen=True)
class Usual:
    """When an undisturbed run writes its first file, and when it ends, in seconds."""

    begun: float
    end: float


class Scene:
    """A run in `folder`, which `driver` makes with these options of `sample` where `place` is.

    `undisturbed` is the folder of the same run by one process, and `usual` how long it takes; both
    are None for that run itself. `problems` are processes that ended otherwise than they should.
    A context manager, which undoes what a fault did to the folder.
    """

    def __init__(
        self,
        folder: Path,
        options: Sequence[str],
        driver: Driver,
        place: Disk,
        draw: random.Random,
        undisturbed: Path | None = None,
        usual: Usual | None = None,
    ) -> None:
        self.folder, self.draw, self.driver, self.place = folder, draw, driver, place
        self.undisturbed, self.problems = undisturbed, list[str]()
        self.usual = usual or Usual(0, 0)
        self.out = folder / "faces"
        self.undo = ExitStack()
        self._options = options
        folder.mkdir()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo.close()

    @property
    def span(self) -> float:
        """Seconds from an undisturbed run's first file to its end."""
        return self.usual.end - self.usual.begun

    @contextmanager
    def started(self, times: int = 1) -> Generator[list[subprocess.Popen[str]]]:
        """Start all processes, so many of each; none of them is left afterwards."""
        program = [sys.executable, "-m", "synfer_rt", "sample"]
        where = ["--out", self.place.address(self.out), *self.place.options()]
        how = [*program, *where, *self._options, *self.driver.settings]
        processes = [
            subprocess.Popen(
                [*how, *options],
                env=self.place.environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for options in self.driver.processes * times
        ]
        try:
            yield processes
        finally:
            for process in processes:
                process.kill()
                process.wait()
                assert process.stderr is not None
                process.stderr.close()

    def ended(self, process: subprocess.Popen[str], *codes: int, saying: str = "") -> int:
        """The exit code of a process, when it has ended; it must be one of these.

        With another one than 0 it must say this, in one sentence.
        """
        _, said = process.communicate(timeout=_LONGEST)
        sound = process.returncode in codes and "Traceback" not in said
        if not sound or (process.returncode > 0 and saying not in said):
            self.problems.append(f"exit code {process.returncode}: {said.strip()[-300:]}")
        return process.returncode

    def complete(self) -> Usual:
        """Run all processes undisturbed, and say when they began to write and ended."""
        before, started = self.place.traces(self.out), time.monotonic()
        with self.started() as processes:
            self.wait_for_a_trace(processes, before)
            begun = time.monotonic() - started
            for process in processes:
                self.ended(process, 0)
        if not self.finished():
            self.problems.append("all processes have ended, and the run is not finished")
        return Usual(begun, time.monotonic() - started)

    def finished(self) -> bool:
        """Whether all shards are there, and nothing is left of their making."""
        self.place.fetch(self.out)
        return run_file.exists(self.out) and run_status(self.out).finished

    def wait_for_a_trace(
        self, processes: Sequence[subprocess.Popen[str]], before: Mapping[str, int]
    ) -> None:
        """Wait until a process writes something, or all have ended."""
        while any(process.poll() is None for process in processes):
            if self.place.traces(self.out) != before:
                return
            time.sleep(self.place.looks)


@dataclass(frozen=True)
class FaultKind:
    """A fault, what it is in words, and how it is made.

    It is done to runs of these formats. Some `kill` processes, which are counted.
    """

    name: str
    means: str
    disturb: Callable[[Scene], int]
    kills: bool = False
    formats: tuple[str, ...] = FORMATS
