"""`run.json`: the settings of a run, there from the first moment on; and where it lies.

The output directory holds samples and nothing else, for some readers take every file of a directory
for data, others every folder for a class and every image for a sample. All else of a run lies in
its own folder beside it: `__faces__` beside `faces`. Readers that go through the directory around
both pass over names that begin with two underscores, or find nothing there that they could take for
data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from synfer_rt.backends import computation
from synfer_rt.data.writers.atomic import commit, disk_errors, open_growing, partial, write_whole
from synfer_rt.errors import UserError
from synfer_rt.paths import resolved
from synfer_rt.records import json_object

FILE = "run.json"
_MADE = "made"
_INSIDE = "__run__"
OLD_SHEET = "contact-sheet.png"
"""What older releases wrote among the samples, and is none."""
OTHER_DATASET = (
    "dataset (files, labels, sizes or times of change are not what they were, or another release "
    "of synfer-rt read it)"
)


def folder(out: Path) -> Path:
    """Where all that belongs to the run in `out` and is no sample lies; it need not be there.

    Where `out` is a mount point, there is no beside (a container's volume outlives what lies around
    it, and nothing can be renamed into it from there): then it is `out/__run__`.
    """
    out = resolved(out)
    inside = out / _INSIDE
    if os.path.ismount(out) or os.path.isdir(inside):
        return inside
    return out.with_name(f"__{out.name}__")


def path(out: Path) -> Path:
    """The settings of the run in `out`; it need not be there.

    Older releases wrote them, and all else, among the samples, where they are still found.
    """
    beside, among = folder(out) / FILE, out / FILE
    return among if os.path.exists(among) and not os.path.exists(beside) else beside


def exists(out: Path) -> bool:
    """Whether `out` holds a run: the settings alone, left by a directory that is gone, are none."""
    return os.path.isdir(out) and os.path.exists(path(out))


def begin(out: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a new run, of several that begin at once the first one's alone.

    Raises UserError, also for a run that is there.
    """
    with disk_errors(out):
        aside = folder(out)
        aside.mkdir(parents=True, exist_ok=True)
        with open_growing(aside / FILE) as file:
            if exists(out):
                partial(aside / FILE).unlink(missing_ok=True)
                raise UserError(
                    f"{out} already holds a run; continue it with --resume, or choose another "
                    "directory with --out."
                )
            for left in aside.iterdir():  # by a run whose directory is gone
                if left != partial(aside / FILE):
                    left.unlink()
            out.mkdir(parents=True, exist_ok=True)
            file.truncate()
            file.write(_json(settings))
            commit(file, aside / FILE)


def adopt(out: Path) -> None:
    """Move what an older release wrote among the samples to where it lies now.

    A contact sheet is removed, for it is drawn again when the run ends. Raises UserError.
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


def load(out: Path) -> dict[str, Any]:
    """The settings of the run in `out`. Raises UserError when they cannot be read."""
    try:
        return json_object(path(out).read_bytes())
    except (OSError, ValueError):
        raise UserError(
            f"{path(out)} is damaged; put it back as it was, or choose another --out."
        ) from None


def check_same(out: Path, settings: Mapping[str, Any]) -> None:
    """Raise UserError unless the run in `out` was begun with these settings.

    A setting that one of them lacks is None there. Where and how the images are computed is not
    among them: Computation.differs.
    """
    before, settings = load(out), json.loads(json.dumps(settings))
    for name in [*before, *settings]:
        old, new = before.get(name), settings.get(name)
        if old != new and name not in (_MADE, *computation.FIELDS):
            change = f"{name.replace('_', ' ')}: {json.dumps(old)}, now {json.dumps(new)}"
            if name == "dataset":  # hashes, which tell nobody what it was
                change = OTHER_DATASET
            raise UserError(
                f"{out} was begun with another {change}; resume it with its own settings, or "
                "choose another directory with --out."
            )


def count(settings: Mapping[str, Any]) -> int:
    """The samples of a run when it is whole: those of its settings, or those it ended with."""
    return int(settings.get(_MADE, settings["count"]))


def end(out: Path, made: int) -> None:
    """Note that the run ends with `made` samples, fewer than it could have had.

    To be noted before the last file has its final name: a short last shard means that more is to
    come. Raises UserError.
    """
    with disk_errors(out):
        write_whole(path(out), _json({**load(out), _MADE: made}))


def _json(settings: Mapping[str, Any]) -> bytes:
    return json.dumps(settings, indent=2).encode() + b"\n"
