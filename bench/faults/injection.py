"""Faults that are done to real runs of `synfer-rt sample`, and the runs that they are done to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from synfer_rt.bench.faults.of_ray import kill_a_node, kill_workers, ray_nodes
from synfer_rt.bench.faults.of_stores import be_away, cut_connections, s3
from synfer_rt.bench.faults.scenes import Driver, FaultKind, ImpossibleError, Scene
from synfer_rt.data.writers import run_file

_EARLY = 0.1
"""The share of kills before a process has written anything."""
_PAGE = 4096
_SAMPLES = (".tar", ".parquet", ".png")
_DEAD = ".by-gone-4711-0badcafe-1.partial"
"""What follows the names of files of a process that no longer is."""


def kill(scene: Scene) -> int:
    """Kill each process at a random moment; how many of them had not ended."""
    before = scene.place.traces(scene.out)
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


_ON_DISK = (
    "SIGKILL",
    "disk full",
    "not writable",
    "file cut short",
    "partial files",
    "started twice",
)
_ONE = (("--resume",),)
_PARTS = ("--part", "0/2"), ("--part", "1/2")
_SHARDS = "webdataset", "parquet"
_S3 = (
    "into moto's S3 server on this machine, behind a proxy; its objects but for the records "
    "of shards are downloaded, and compared with a run on this disk"
)
DRIVERS = (
    Driver("one process", _ONE, _ON_DISK),
    Driver("2 parts at once", _PARTS, _ON_DISK),
    Driver(
        "2 parts at once, --count-accepted",
        _PARTS,
        ("SIGKILL",),
        settings=("--count", "3", "--count-accepted", "--accept-rate", "0.6"),
    ),
    Driver(
        "Ray, 2 nodes",
        _ONE,
        ("SIGKILL", "worker killed", "node killed"),
        means="a cluster on this machine, whose nodes have one CPU core each; SIGKILL is for the "
        "driver",
        place=ray_nodes,
        formats=("imagefolder", "webdataset"),
    ),
    Driver(
        "one process, S3",
        _ONE,
        ("SIGKILL", "connections cut", "store away for 5 s"),
        means=_S3,
        place=s3,
        formats=_SHARDS,
    ),
    Driver(
        "2 parts at once, S3",
        _PARTS,
        ("SIGKILL", "connections cut", "store away for 60 s"),
        means=_S3,
        place=s3,
        formats=_SHARDS,
    ),
)
"""The drivers of the shard maker that are put to the test."""


KILLED = FaultKind(
    "SIGKILL",
    "each process at once is killed at a random moment, one in ten before it has written anything, "
    "the others between the first file that it writes and the time that an undisturbed run ends",
    kill,
    kills=True,
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
    FaultKind(
        "worker killed",
        "up to 3 random workers of Ray are killed while they write shards; the driver goes on",
        kill_workers,
        kills=True,
    ),
    FaultKind(
        "node killed",
        "all processes of one of Ray's two nodes are killed while it writes a shard; the driver "
        "goes on",
        kill_a_node,
    ),
    FaultKind(
        "connections cut",
        "connections to the store are cut at random moments, and half of the first 24 after a "
        "random number of bytes, up or down",
        cut_connections,
    ),
    FaultKind(
        "store away for 5 s",
        "in the middle of the run the store refuses connections for 5 seconds, and cuts those "
        "that it has",
        partial(be_away, 5.0),
    ),
    FaultKind(
        "store away for 60 s",
        "the same for a minute",
        partial(be_away, 60.0),
        formats=("webdataset",),
    ),
)
