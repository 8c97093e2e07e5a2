"""The commands that make an image again, or all images of a source."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

from synfer_rt.data.writers import SHARD_SIZE, run_file
from synfer_rt.jobs.card.command import command, filling_in, labelling
from synfer_rt.records import CORESET
from synfer_rt.report.sources import RUN, Source

INDEX, SHARD, FILE = "index", "shard", "file"
_END = "--out OUT"


@dataclass(frozen=True)
class Again:
    """`one` makes an image again: a command in two parts, and between them what `of` says of it.

    That is its INDEX, the number of the SHARD of `per_shard` images that it lies in, or its FILE,
    below `folder`. Where `one` is None, only `whole` makes it, with all others. `remark` says so,
    and what a reader must fill in.
    """

    one: tuple[str, str] | None
    of: str
    per_shard: int
    folder: str
    whole: str
    remark: str


def again(source: Source) -> Again:
    """How the images of a source are made again."""
    if source.kind != RUN:
        return _labels(source)
    settings = source.settings
    per_shard = int(settings.get("shard_size", SHARD_SIZE))
    line = command(settings)
    if CORESET in settings or settings.get("command") == "augment":
        line = line or "synfer-rt augment --help"
        return Again(None, INDEX, per_shard, "", line, filling_in(line))
    if line is None:
        begin = "synfer-rt sample --bundle BUNDLE --plan RUN_JSON"
        remark = filling_in(begin)
        shards = run_file.shard_count(settings)
        parts = (f"{begin} --part ", f"/{shards} --out OUT")
        if settings.get("accepted_per_class") is not None:
            return Again(None, INDEX, per_shard, "", f"{begin} {_END}", remark)
        remark += " It makes the shard that holds the image."
        return Again(parts, SHARD, per_shard, "", f"{begin} {_END}", remark)
    remark = filling_in(line)
    if settings.get("accepted_per_class") is not None:
        remark += " What is requested depends on the images before, so it makes all of them."
        return Again(None, INDEX, per_shard, "", line, remark)
    alone = command({**settings, "shard_size": 1}) or line
    parts = (f"{alone.removesuffix(_END)}--part ", f"/{run_file.count(settings)} {_END}")
    return Again(parts, INDEX, per_shard, "", line, remark)


def _labels(source: Source) -> Again:
    """The commands of a table of `label`."""
    folder = str(source.settings.get("folder", "IMAGES")).replace(os.sep, "/")
    options = " ".join(labelling(source.settings))
    end = " ".join(filter(None, ("--bundle BUNDLE", options, "--out labels-again.jsonl")))
    whole = f"synfer-rt label {shlex.quote(folder)} {end}"
    remark = f"{filling_in(end)} Paths are relative to the table's folder."
    return Again(("synfer-rt label ", f" {end}"), FILE, 1, folder, whole, remark)
