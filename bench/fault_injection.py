"""Faults that are done to real runs of `synfer-rt sample`, and the runs that they are done to.

Each fault is a function that disturbs a `Scene` and returns how often. It leaves the scene so that
its commands, run once more, should complete the dataset.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from synfer_rt.data.writers import run_file
from synfer_rt.jobs.run_status import run_status

_LOOKS = 0.005
"""Seconds between two looks at the files of a run."""
_EARLY = 0.1
"""The share of kills before a process has written anything."""
_LONGEST = 600.0
"""Seconds after which a process that should have ended is no longer waited for."""
_PAGE = 4096
_SAMPLES = (".tar", ".parquet", ".png")
_DEAD = ".by-gone-4711-0badcafe-1.partial"
"""What follows the names of files of a process that no longer is."""


class ImpossibleError(Exception):
    """The fault cannot be made on this machine."""


@dataclass(frozen=True)
class Driver:
    """A way to make a run: the options of each process at once, and those that all have.

    With `killed_alone` no other fault is tried.
    """

    name: str
    processes: tuple[tuple[str, ...], ...]
    settings: tuple[str, ...] = ()
    killed_alone: bool = False


_PARTS = ("--part", "0/2"), ("--part", "1/2")
DRIVERS = (
    Driver("one process", (("--resume",),)),
    Driver("2 parts at once", _PARTS),
    Driver(
        "2 parts at once, --count-accepted",
        _PARTS,
        ("--count", "3", "--count-accepted", "--accept-rate", "0.6"),
        killed_alone=True,
    ),
)
"""The drivers of the shard maker that are put to the test."""


@dataclass(frozen=True)
class Usual:
    """When an undisturbed run writes its first file, and when it ends, in seconds."""

    begun: float
    end: float


class Scene:
    """A run in `folder`, which `driver` makes with these options of `sample`.

    `undisturbed` is the folder of the same run by one process, and `usual` how long it takes; both
    are None for that run itself. `problems` are processes that ended otherwise than they should.
    A context manager, which undoes what a fault did to the folder.
    """

    def __init__(
        self,
        folder: Path,
        options: Sequence[str],
        driver: Driver,
        draw: random.Random,
        undisturbed: Path | None = None,
        usual: Usual | None = None,
    ) -> None:
        self.folder, self.draw, self.driver = folder, draw, driver
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
        program = [sys.executable, "-m", "synfer_rt", "sample", "--out", str(self.out)]
        processes = [
            subprocess.Popen(
                [*program, *self._options, *self.driver.settings, *options],
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
        before, started = self.traces(), time.monotonic()
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
        return run_file.exists(self.out) and run_status(self.out).finished

    def traces(self) -> dict[str, int]:
        """The files of the run at the top of its two folders, with their sizes."""
        sizes: dict[str, int] = {}
        for folder in self.out, run_file.folder(self.out):
            for path in folder.glob("*"):
                try:
                    sizes[str(path)] = path.stat().st_size
                except FileNotFoundError:  # renamed meanwhile
                    continue
        return sizes

    def wait_for_a_trace(
        self, processes: Sequence[subprocess.Popen[str]], before: Mapping[str, int]
    ) -> None:
        """Wait until a process writes something, or all have ended."""
        while self.traces() == before and any(process.poll() is None for process in processes):
            time.sleep(_LOOKS)


def kill(scene: Scene) -> int:
    """Kill each process at a random moment; how many of them had not ended."""
    before = scene.traces()
    with scene.started() as processes:
        if scene.draw.random() < _EARLY:
            time.sleep(scene.draw.uniform(0, scene.usual.begun))
        else:
            scene.wait_for_a_trace(processes, before)
        started = time.monotonic()
        moments = sorted(scene.draw.uniform(0, scene.span) for _ in processes)
        victims = scene.draw.sample(processes, len(processes))
        for process, moment in zip(victims, moments, strict=True):
            time.sleep(max(0.0, started + moment - time.monotonic()))
            process.kill()
        codes = [scene.ended(process, 0, -signal.SIGKILL) for process in processes]
    return codes.count(-signal.SIGKILL)


def fill_disk(scene: Scene) -> int:
    """Run on a file system that is too small for the run, and then make it larger."""
    if os.geteuid():
        raise ImpossibleError("a file system of limited size can be mounted by root alone")
    assert scene.undisturbed is not None
    files = [path for path in scene.undisturbed.rglob("*") if path.is_file()]
    needed = sum(-(-path.stat().st_size // _PAGE) * _PAGE for path in files)
    size = int(needed * scene.draw.uniform(0.3, 0.8))
    _call("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(scene.folder))
    scene.undo.callback(_call, "umount", str(scene.folder))
    with scene.started() as processes:
        codes = [scene.ended(process, 0, 2, saying="No space left") for process in processes]
    _call("mount", "-o", f"remount,size={8 * needed}", str(scene.folder))
    return codes.count(2)


def forbid_writing(scene: Scene) -> int:
    """Let nobody write to the folders of a run under way, and then allow it again."""
    with scene.started() as processes:
        scene.wait_for_a_trace(processes, {})
        time.sleep(scene.draw.uniform(0, scene.span / 2))
        folders = [path for path in scene.folder.rglob("*") if path.is_dir()]
        with _not_writable([scene.folder, *folders]):
            said = "Cannot write"
            codes = [scene.ended(process, 0, 2, saying=said) for process in processes]
    return codes.count(2)


@contextmanager
def _not_writable(folders: Sequence[Path]) -> Generator[None]:
    """Within the block nothing can be made or removed in these folders, not even by root."""
    if os.geteuid():
        with ExitStack() as undo:
            for folder in folders:
                undo.callback(folder.chmod, folder.stat().st_mode & 0o7777)
                folder.chmod(0o555)
            yield
        return
    with ExitStack() as undo:
        for folder in folders:
            _call("chattr", "+i", str(folder))
            undo.callback(_call, "chattr", "-i", str(folder))
        yield


def cut_a_file(scene: Scene) -> int:
    """Cut a shard of a finished run, or an image of an imagefolder, at a random byte."""
    assert scene.undisturbed is not None
    shutil.copytree(scene.undisturbed, scene.folder, dirs_exist_ok=True)
    file = scene.draw.choice(sorted(p for p in scene.out.rglob("*") if p.suffix in _SAMPLES))
    os.truncate(file, scene.draw.randrange(file.stat().st_size))
    return 1


def leave_partial_files(scene: Scene) -> int:
    """Kill all processes, and leave unfinished files of a process on another machine."""
    kill(scene)
    folder, names = run_file.folder(scene.out), ("000001.tar", "metadata-00001.jsonl", "7.png")
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}{_DEAD}").write_bytes(scene.draw.randbytes(5000))
    return 1


def start_twice(scene: Scene) -> int:
    """Start each process twice at once."""
    with scene.started(times=2) as processes:
        for process in processes:
            scene.ended(process, 0, 2, saying="Another synfer-rt")
    return 1


def _call(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = str(getattr(error, "stderr", None) or error).strip()
        raise ImpossibleError(f"`{' '.join(words[:-1])}` fails here ({why})") from None


@dataclass(frozen=True)
class FaultKind:
    """A fault, what it is in words, and how it is made."""

    name: str
    means: str
    disturb: Callable[[Scene], int]


KILLED = FaultKind(
    "SIGKILL",
    "each process at once is killed at a random moment, one in ten before it has written anything, "
    "the others between the first file that it writes and the time that an undisturbed run ends",
    kill,
)
FAULTS = (
    KILLED,
    FaultKind(
        "disk full",
        "the run lies on a tmpfs of 30 to 80 % of the size that it needs, which is enlarged when "
        "its processes have ended; it takes root to mount it",
        fill_disk,
    ),
    FaultKind(
        "not writable",
        "in the middle of the run all its folders become immutable (`chattr +i`, which binds root "
        "too; without root, their mode becomes 555), until its processes have ended",
        forbid_writing,
    ),
    FaultKind(
        "file cut short",
        "a shard of a finished run, or an image of an imagefolder, is cut at a random byte",
        cut_a_file,
    ),
    FaultKind(
        "partial files",
        "all processes are killed, and unfinished files of a process on another machine lie around",
        leave_partial_files,
    ),
    FaultKind("started twice", "two of each process run at once", start_twice),
)
