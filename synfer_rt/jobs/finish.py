"""The end of a run that was made in parts: everything is checked and counted."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synfer_rt.data.contact_sheet import write_contact_sheet
from synfer_rt.data.writers import run_file, shards_of
from synfer_rt.data.writers.shards import Shards, finish
from synfer_rt.errors import UserError
from synfer_rt.jobs.card.card import write_card
from synfer_rt.jobs.class_tally import ClassTally, tally
from synfer_rt.jobs.run_status import RunStatus, run_status
from synfer_rt.jobs.verify import settings_of, spans
from synfer_rt.records import Record


@dataclass(frozen=True)
class Finished:
    """The finished dataset in `path`, a folder or an address: `count` images.

    `labelled` and `accepted` count them by their label; nobody has accepted any unless `judged`.
    `contact_sheet` is an HTML page with the first images of each class.
    """

    path: Path | str
    count: int
    labelled: Mapping[str, int]
    accepted: Mapping[str, int]
    judged: bool
    contact_sheet: Path | str


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
        finish(out, shards)
        made = _counted(out, settings, shards)
    sheet = write_contact_sheet(out, settings["labels"])
    write_card(out, made)
    labelled = {name: made.labelled[name] for name in settings["classes"] if made.labelled[name]}
    accepted = {name: made.accepted[name] for name in settings["classes"]}
    return Finished(out, made.images, labelled, accepted, made.judged, sheet)


def _lack(status: RunStatus) -> str:
    kinds = ("missing", status.missing), ("damaged", status.damaged)
    words = "; ".join(f"{kind}: {spans(numbers)}" for kind, numbers in kinds if numbers)
    lacking = len(status.missing) + len(status.damaged)
    return (
        f"{status.path} lacks {lacking} of {status.shards} shards ({words}); run the commands of "
        "their parts again, or one of them with `--resume` instead of `--part`."
    )


def _counted(out: Path, settings: Mapping[str, Any], shards: Shards) -> ClassTally:
    """The images of a whole run. Raises UserError for a damaged record."""
    index = 0

    def sound() -> Iterator[Record]:
        nonlocal index
        for record in shards.records(range(run_file.shard_count(settings))):
            if record["index"] != index or record["label"] not in settings["classes"]:
                raise ValueError("another image")
            yield record
            index += 1

    try:
        return tally(sound())
    except (OSError, ValueError, LookupError, AttributeError, TypeError, tarfile.TarError):
        raise UserError(
            f"Image {index} of {out}, in shard {index // int(settings['shard_size'])}, has no "
            "sound record; `synfer-rt verify` says what is damaged."
        ) from None
