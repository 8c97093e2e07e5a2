"""Datasets on disk: crash-safe, resumable, one module a format.

The output directory of a run holds its samples in one of FORMATS. The run's own folder beside it
(`run_file.folder`) holds `run.json` and files that are not whole yet. Samples are written in the
order of their indices, so a run that was killed has samples 0 to n-1 and resumes at n. Samples that
were lost later are made again. Several processes may make one run together, in parts (`shards.py`).
A run may also lie in an object store, of which a directory then is a working copy
(`working_copy.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Protocol

from synfer_rt.data.image_format import ImageFormat
from synfer_rt.data.storage.objects import Objects
from synfer_rt.data.writers import imagefolder, parquet, run_file, webdataset
from synfer_rt.data.writers.atomic import disk_errors
from synfer_rt.data.writers.decisions import SampleFiles, UndecidedFiles, undecided
from synfer_rt.data.writers.file_shards import FileShards, ShardFormat
from synfer_rt.data.writers.folder_shards import FolderShards
from synfer_rt.data.writers.growing_shards import ShardWriter
from synfer_rt.data.writers.shards import EVERY, Part, PartWriter, Shards, deferred
from synfer_rt.data.writers.stored_shards import StoredShards
from synfer_rt.data.writers.working_copy import address_in, own_folder, share_settings
from synfer_rt.errors import UserError
from synfer_rt.paths import local, resolved
from synfer_rt.records import Record

_SETTLED = (run_file.FILE, "skipped.jsonl", run_file.FACES)  # known before any sample is made
SHARD_SIZE = 10_000
"""Samples in a shard of the formats that have shards."""


class Writer(Protocol):
    """Writes the samples of one run; `write`, `finish` and `close` raise UserError.

    Raised when the disk is full or not writable, in one sentence with the remedy.
    """

    lacking: Sequence[int]
    """The indices to write, in rising order, as they were when the output was opened.

    Usually all from some index on. If samples were lost or damaged since, their indices too, as far
    as this shows without reading everything."""
    done: int
    """How many samples are there."""
    count: int
    """The samples of the whole run, or of the part of it that is written."""
    missing: int
    """The shards of the run that are still missing when a part is finished; else 0."""
    image_format: ImageFormat
    """The format of the images."""
    deferred: bool
    """Whether samples are only accepted when all are there; until then they are if not broken."""

    def records(self) -> Iterator[Record]:
        """The records of the samples before the first of `lacking`, by index.

        Call it before anything is written.
        """
        ...

    def write(self, records: Sequence[Mapping[str, Any]], images: Sequence[bytes]) -> None:
        """Write records and image files of some of `lacking`, or of all indices from its first on.

        They are given in the order of their indices, the images in `image_format`.
        """
        ...

    def finish(self) -> None:
        """Give every file its final name, and close: all samples are written.

        A run may end with fewer samples than `count`; `count` then becomes their number.
        """
        ...

    def close(self) -> None:
        """Stop; what is written stays for a run that resumes."""
        ...


_FILES: dict[str, Callable[[Mapping[str, Any]], ShardFormat]] = {
    "webdataset": webdataset.shard_format,
    "parquet": parquet.shard_format,
}
_READERS = {
    "imagefolder": imagefolder.read,
    "webdataset": webdataset.read,
    "parquet": parquet.read,
}
FORMATS = ("imagefolder", *_FILES)


def open_output(
    out: Path,
    settings: Mapping[str, Any],
    *,
    resume: bool,
    shard_size: int = SHARD_SIZE,
    part: Part | None = None,
) -> Writer:
    """Start a run in `out`, or with `resume` continue the one that is there.

    With `part` its shards are written, beside processes that write others, and whichever comes
    first starts the run.

    `settings` are JSON values: at least `format`, `count`, `classes` and `au_vocabulary`, and
    whatever else decides what the samples are; they must be the same when a run is resumed.

    Raises UserError as `check_output` does, and when `out` is not writable.
    """
    if part is not None:
        join_output(out, settings, shard_size)
    elif not check_output(out, settings, resume=resume, shard_size=shard_size):
        if address_in(out) is None:
            run_file.begin(out, {**settings, "shard_size": shard_size})
        else:
            join_output(out, settings, shard_size)
    run_file.adopt(out)
    settings = run_file.load(out)  # with the shards' size, and where the run ended
    return _writer(out, settings, part)


def join_output(out: Path, settings: Mapping[str, Any], shard_size: int = SHARD_SIZE) -> None:
    """Start a run in `out` unless another process has; raises UserError as `check_output` does."""
    try:
        check_output(out, settings, resume=True, shard_size=shard_size)
        run_file.join(out, {**settings, "shard_size": shard_size})
        share_settings(out)
        check_output(out, settings, resume=True, shard_size=shard_size)
    except UserError as error:
        if address_in(out) is not None or not run_file.exists(out) or any(out.iterdir()):
            raise
        # That run has no sample yet, or somebody has removed its samples and not its settings.
        left = run_file.folder(out)
        raise UserError(f"{error} If that run was removed, remove {left} too.") from None


def _writer(out: Path, settings: dict[str, Any], part: Part | None) -> Writer:
    in_shards = address_in(out) is not None or any(run_file.unfinished_shards(out))
    if part is None and in_shards:
        part = EVERY
    if part is not None:
        return PartWriter(out, settings, shards_of(out, settings), part)
    if settings["format"] == "imagefolder":
        return imagefolder.ImageFolderWriter(out, settings)
    return ShardWriter(out, settings, _FILES[settings["format"]](settings))


def shards_of(out: Path, settings: Mapping[str, Any]) -> Shards:
    """The shards of the run in `out`, whose settings have the shards' size; close it when done."""
    if settings["format"] == "imagefolder":
        return FolderShards(out, settings)
    final = _files(out, settings, _FILES[settings["format"]](settings))
    if not deferred(settings):
        return final
    return UndecidedFiles(settings, final, _files(out, settings, undecided(settings), aside=True))


def _files(
    out: Path, settings: Mapping[str, Any], format: ShardFormat, aside: bool = False
) -> SampleFiles:
    """The shards that lie among the samples, or `aside` in the run's own folder."""
    files = FileShards(out, settings, format, run_file.folder(out) if aside else out)
    address = address_in(out)
    if address is None:
        return files
    beside = Objects(own_folder(address))
    if aside:
        return StoredShards(settings, format, files, beside)
    return StoredShards(settings, format, files, Objects(address), beside)


def check_output(
    out: Path, settings: Mapping[str, Any], *, resume: bool, shard_size: int = SHARD_SIZE
) -> bool:
    """Whether `out` holds a run that `open_output` would continue; writes nothing.

    Raises UserError as `check_place` does, and if the settings differ (naming the first that does).
    """
    out = local(out)
    with disk_errors(out):
        if not check_place(out, resume=resume):
            return False
        run_file.check_same(out, {**settings, "shard_size": shard_size})
        return True


def check_place(out: Path, *, resume: bool) -> bool:
    """Whether `out` holds a run that is to be continued; writes nothing.

    Raises UserError if `out` holds anything and `resume` is false, and if it holds something other
    than a run.
    """
    out = local(out)
    with disk_errors(out):
        aside = run_file.folder(out)
        others = out.exists() and any(path != aside for path in resolved(out).iterdir())
        if run_file.exists(out):
            if not resume:
                raise UserError(
                    f"{out} already holds a run; continue it with `resume=True`, or choose another "
                    "`out`."
                )
            return True
        if others:
            raise UserError(
                f"{out} exists and holds no run of synfer-rt ({aside / run_file.FILE} is missing); "
                "if it was moved, move the folder beside it too, otherwise choose another `out`."
            )
    return False


def is_whole(out: Path, part: Part | None = None) -> bool:
    """Whether the run in `out`, or the part, lacks no sample, as far as opening it shows.

    Raises UserError.
    """
    if part is None and any(run_file.growing(out)):
        return False
    try:
        writer = _writer(out, run_file.load(out), part)
    except (LookupError, TypeError, ValueError):  # settings that `check_output` refuses
        return False
    writer.close()
    return not writer.lacking


def discard_empty(out: Path) -> None:
    """Remove a run that has no sample yet, so that any other run may start in `out`.

    Call it when the run's writer is closed. A directory that holds anything else is left as it is.
    Faces that were found stay.
    """
    aside = run_file.folder(out)
    with suppress(OSError):
        # The settings go last: without them the rest would be taken for something else.
        paths = sorted(aside.iterdir(), key=lambda path: path.name == run_file.FILE)
        samples = any(path != aside for path in resolved(out).iterdir())
        if not samples and all(path.name in _SETTLED or _is_empty_partial(path) for path in paths):
            for path in paths:
                if path.name != run_file.FACES:
                    path.unlink()
            aside.rmdir()  # which it only does if nothing is there


def _is_empty_partial(path: Path) -> bool:
    return path.suffix == ".partial" and path.is_file() and path.stat().st_size == 0


def read(out: Path) -> Iterator[tuple[Record, bytes]]:
    """Every sample of a finished run, by index: its record and its image file's bytes."""
    settings = run_file.load(out)
    if address_in(out) is None:
        return _READERS[settings["format"]](out)
    return _from_store(_files(out, settings, _FILES[settings["format"]](settings)), settings)


def _from_store(shards: SampleFiles, settings: Mapping[str, Any]) -> Iterator[tuple[Record, bytes]]:
    with closing(shards):
        for number in range(run_file.shard_count(settings)):
            yield from shards.samples(number)
