"""The end of a run that was made in parts: everything is checked and counted."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synfer_rt.data.contact_sheet import write_contact_sheet
from synfer_rt.data.writers import run_file, shards_of
from synfer_rt.data.writers.shards import PartWriter, Shards
from synfer_rt.errors import UserError
from synfer_rt.jobs.card import write_card
from synfer_rt.jobs.run_status import RunStatus, run_status
from synfer_rt.jobs.verify import settings_of, spans
from synfer_rt.records import Record


@dataclass(frozen=True)
class Finished:
    """The finished dataset in `path`: `count` images.

    `labelled` and `accepted` count them by their label; nobody has accepted any unless `judged`.
    `contact_sheet` is an HTML page with the first images of each class.
    """

    path: Path
    count: int
    labelled: Mapping[str, int]
    accepted: Mapping[str, int]
    judged: bool
    contact_sheet: Path


def finish_run(out: Path) -> Finished:
    """Check all shards of the run in `out`, make of them what readers open, and count its images.

    Every record is read, and whether each image has both ends. Raises UserError if a shard is
    missing or damaged, and for an output of `augment`.
    """
    settings = settings_of(out)
    if settings.get("command") == "augment":
        raise UserError(
            f"{out} is an output of `synfer-rt augment`, which is not made in parts; run its "
            "command again with `--resume`."
        )
    status = run_status(out)
    if not status.complete:
        raise UserError(_lack(status))
    with closing(shards_of(out, settings)) as shards:
        PartWriter(out, settings, shards).finish()
        made = _counted(out, settings, shards)
    sheet = write_contact_sheet(out, settings["labels"])
    write_card(out)
    labelled = {name: images for name, images in made.labelled.items() if images}
    return Finished(out, made.images, labelled, made.accepted, made.judged, sheet)


def _lack(status: RunStatus) -> str:
    kinds = ("missing", status.missing), ("damaged", status.damaged)
    words = "; ".join(f"{kind}: {spans(numbers)}" for kind, numbers in kinds if numbers)
    lacking = len(status.missing) + len(status.damaged)
    return (
        f"{status.path} lacks {lacking} of {status.shards} shards ({words}); run the commands of "
        "their parts again, or one of them with `--resume` instead of `--part`."
    )


class _Counts:
    """Counts the images of a run, in the order of its classes."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.labelled = dict.fromkeys(classes, 0)
        self.accepted = dict.fromkeys(classes, 0)
        self.images, self.judged = 0, False

    def count(self, record: Record) -> None:
        """Count the next image. Raises LookupError or ValueError for what cannot be its record."""
        if record["index"] != self.images:
            raise ValueError("another image")
        self.labelled[record["label"]] += 1
        self.accepted[record["label"]] += bool(record["accepted"])
        self.judged = self.judged or any(record["probabilities"].values())
        self.images += 1


def _counted(out: Path, settings: Mapping[str, Any], shards: Shards) -> _Counts:
    """The images of a whole run. Raises UserError for a damaged record."""
    counts = _Counts(settings["classes"])
    try:
        for record in shards.records(range(run_file.shard_count(settings))):
            counts.count(record)
    except (OSError, ValueError, LookupError, AttributeError, TypeError, tarfile.TarError):
        index = counts.images
        raise UserError(
            f"Image {index} of {out}, in shard {index // int(settings['shard_size'])}, has no "
            "sound record; `synfer-rt verify` says what is damaged."
        ) from None
    return counts
