"""`run.json`, the settings of a run, which are written before anything else; and where it lies.

The output directory holds nothing but samples and the dataset card (`card_files`), since some
readers take every file of a directory for data, others every folder for a class and every image for
a sample. Everything else of a run lies in the run's own folder beside the output: `__faces__`
beside `faces`. Readers that walk the directory around both skip names that begin with two
underscores, or find nothing there that they could take for data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from synfer_rt.backends import computation
from synfer_rt.bundle.qualities import BEST
from synfer_rt.data.image_format import ENCODER, PNG
from synfer_rt.data.writers.atomic import (
    OWN,
    commit,
    disk_errors,
    open_growing,
    own,
    partial,
    publish,
    write_whole,
)
from synfer_rt.errors import UserError
from synfer_rt.paths import resolved
from synfer_rt.records import json_object

FILE = "run.json"
RAN_ON = "ran_on"
"""The key of where each engine ran when the run was begun, which may differ when it continues."""
_FIRST = {"quality": BEST, "cache_every": 1, "image_format": PNG.name}
"""Settings that runs of some releases do not name, with the values that these have; the first two
decide which engines make images, and so the bundle's hash. They are compared first."""
_MADE = "made"
MODEL = "model"
"""The key of the bundle's name, version and licence, for readers; its hash decides the samples."""
NOT_COMPARED = frozenset((_MADE, MODEL, RAN_ON, ENCODER, *computation.FIELDS))
"""Settings that do not decide which samples a run makes."""
INSIDE = "__run__"
"""The run's own folder in an output that nothing can lie beside."""
UNJOINED, UNDECIDED = "metadata-*.jsonl", "undecided-*.tar"
"""The shards of a run in parts until it is finished: those of an imagefolder, until they are
joined, and those of other formats where acceptance is decided at the end."""
FACES = "faces.bin"
"""Where the faces of the input lie, which takes long to find (jobs/known_faces.py)."""
OLD_SHEET = "contact-sheet.png"
"""The contact sheet that older releases wrote among the samples."""
OTHER_DATASET = (
    "dataset (its files, labels, sizes or modification times have changed, or another release of "
    "synfer-rt read it)"
)
_HASHED = {
    "dataset": OTHER_DATASET,
    "coreset_run": "run (its settings, or the labels or acceptance of its images, have changed)",
}
"""What differs where hashes do, which tell nobody what it was."""


def folder(out: Path) -> Path:
    """The run's own folder, for everything of the run in `out` but its samples; it need not exist.

    It lies beside `out`, but in a mount point it is `out/__run__`: a container's volume outlives
    what lies around it, and nothing can be renamed into it from outside.
    """
    out = resolved(out)
    inside = out / INSIDE
    if os.path.ismount(out) or os.path.isdir(inside):
        return inside
    return out.with_name(f"__{out.name}__")


def output_of(own: Path) -> Path | None:
    """The output whose run has the own folder `own`, by its name; None if it is no such name."""
    name = own.name.removeprefix("__").removesuffix("__")
    return own.with_name(name) if name and own.name == f"__{name}__" else None


def path(out: Path) -> Path:
    """The settings file of the run in `out`; it need not exist.

    Older releases wrote it, and everything else, among the samples, where it is still found.
    """
    beside, among = folder(out) / FILE, out / FILE
    return among if os.path.exists(among) and not os.path.exists(beside) else beside


def exists(out: Path) -> bool:
    """Whether `out` holds a run; settings that a removed directory left behind are not one."""
    # In this order: of several processes that begin a run, one makes both meanwhile.
    return os.path.exists(path(out)) and os.path.isdir(out)


def begin(out: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a new run. Of several runs that begin at once only the first does so.

    Raises UserError if `out` already holds a run or cannot be written.
    """
    with disk_errors(out):
        aside = folder(out)
        aside.mkdir(parents=True, exist_ok=True)
        with open_growing(aside / FILE) as file:
            if exists(out):
                partial(aside / FILE).unlink(missing_ok=True)
                raise UserError(
                    f"{out} already holds a run; continue it with `resume=True`, or choose another "
                    "`out`."
                )
            for left in aside.iterdir():  # by a run whose directory is gone
                if left != partial(aside / FILE):
                    left.unlink()
            out.mkdir(parents=True, exist_ok=True)
            file.truncate()
            file.write(_json(settings))
            commit(file, aside / FILE)


def join(out: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a run in `out` unless it has some; of several processes one does.

    Whatever is there stays. Raises UserError if `out` cannot be written.
    """
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        file = folder(out) / FILE
        if os.path.exists(path(out)):
            return
        file.parent.mkdir(exist_ok=True)
        grown = own(file)
        with grown.open("wb") as begun:
            begun.write(_json(settings))
            begun.flush()
            os.fsync(begun.fileno())
        publish(grown, file, file.exists)


def adopt(out: Path) -> None:
    """Move what an older release wrote among the samples into the run's own folder.

    A contact sheet is removed, since the end of the run draws it again. Raises UserError.
    """
    if path(out) != out / FILE:
        return
    aside = folder(out)
    with disk_errors(out):
        aside.mkdir(exist_ok=True)
        (out / OLD_SHEET).unlink(missing_ok=True)
        for old in [*out.glob("*.partial"), out / "skipped.jsonl", out / FILE]:
            if old.exists():
                old.replace(aside / old.name)


def growing(out: Path) -> Iterator[Path]:
    """The files of the run in `out` that are not whole yet, nor under their final name."""
    for place in (folder(out), out):
        yield from (file for file in place.glob("*.partial") if file != partial(place / FILE))
    yield from unfinished_shards(out)


def unfinished_shards(out: Path) -> Iterator[Path]:
    """The shards in the own folder of the run in `out`, where they are until it is finished."""
    for pattern in UNJOINED, UNDECIDED:
        yield from folder(out).glob(pattern)


def clear(out: Path, pattern: str = OWN) -> None:
    """Remove what processes that were killed have left of the run in `out`, which is whole.

    These are the files of its own folder that match `pattern`. Raises UserError.
    """
    with disk_errors(out):
        for left in folder(out).glob(pattern):
            left.unlink(missing_ok=True)


def load(out: Path) -> dict[str, Any]:
    """The settings of the run in `out`. Raises UserError when they cannot be read."""
    try:
        return json_object(path(out).read_bytes())
    except (OSError, ValueError):
        raise UserError(f"{path(out)} is damaged; restore it, or choose another `out`.") from None


def check_same(out: Path, settings: Mapping[str, Any]) -> None:
    """Raise UserError unless the run in `out` was begun with these settings.

    A setting that one of them lacks is that of _FIRST there, or None. Where and how the images are
    computed is left to `Computation.differs`.
    """
    before = {**_FIRST, **load(out)}
    settings = {**_FIRST, **json.loads(json.dumps(settings))}
    for name in [*before, *settings]:
        old, new = before.get(name), settings.get(name)
        if old != new and name not in NOT_COMPARED:
            change = f"{name.replace('_', ' ')}: {json.dumps(old)}, now {json.dumps(new)}"
            change = _HASHED.get(name, change)
            raise UserError(
                f"{out} was begun with another {change}; resume it with the settings that it was "
                "begun with, or choose another `out`."
            )


def count(settings: Mapping[str, Any]) -> int:
    """The number of samples of a whole run: that of its settings, or that with which it ended."""
    return int(settings.get(_MADE, settings["count"]))


def shard_count(settings: Mapping[str, Any]) -> int:
    """The number of shards of a whole run."""
    return -(-count(settings) // int(settings["shard_size"]))


def shard_indices(settings: Mapping[str, Any], number: int) -> range:
    """The indices of the samples in a shard of a whole run."""
    size = int(settings["shard_size"])
    return range(number * size, min((number + 1) * size, count(settings)))


def end(out: Path, made: int) -> None:
    """Note that the run ends with `made` samples, fewer than its settings allow.

    Call it before the last file gets its final name, since a short last shard means that more
    samples follow. Several processes may do so at once. Raises UserError.
    """
    file = path(out)
    with disk_errors(out):
        write_whole(file, _json({**load(out), _MADE: made}), own(folder(out) / FILE))


def _json(settings: Mapping[str, Any]) -> bytes:
    return json.dumps(settings, indent=2).encode() + b"\n"
