"""The dataset card of a finished run: Hugging Face's README.md, with a header for `datasets`.

It follows from the run's settings and samples alone: no time, name of a machine or path is in it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from synfer_rt.data import card_files
from synfer_rt.data.image_format import of_settings
from synfer_rt.data.writers import run_file, shards_of
from synfer_rt.data.writers.working_copy import samples_of, shown
from synfer_rt.jobs.card.header import header
from synfer_rt.jobs.card.text import text, title
from synfer_rt.jobs.class_tally import ClassTally, tally

LOG = logging.getLogger(__name__)
_SHARDS = {"webdataset": ".tar", "parquet": ".parquet"}
"""How the names of shards end, by format."""


def write_card(out: Path, counts: ClassTally | None = None) -> Path:
    """Write the card of the finished run in `out`, and return its path; see `card_files`.

    `counts` are those of all its records, which are read if none are given. Raises UserError if the
    disk is full or not writable.
    """
    settings = run_file.load(out)
    counts = counts or tally_of(out)
    head = header(settings, counts.images, _size(out, settings), title(settings))
    card = card_files.write_card(out, settings["format"], head, text(settings, counts))
    kept = out / card_files.CARD
    if card != kept and settings["format"] in card_files.AMONG_SAMPLES:
        LOG.info(
            f"{shown(out, kept)} is not as synfer-rt wrote it, so it stays; the run's card is "
            f"{shown(out, card)}."
        )
    return card


def tally_of(out: Path) -> ClassTally:
    """The images of the finished run in `out`; all its records are read."""
    settings = run_file.load(out)
    with closing(shards_of(out, settings)) as shards:
        return tally(shards.records(range(run_file.shard_count(settings))))


def _size(out: Path, settings: Mapping[str, Any]) -> int:
    """The bytes of the files with the samples."""
    images = f".{of_settings(settings).suffix}"
    of_folder = ("metadata.jsonl", images)
    ends, stored = _SHARDS.get(settings["format"], of_folder), samples_of(out)
    if stored is not None:
        return sum(entry.size for name, entry in stored.entries().items() if name.endswith(ends))
    folders = [out, *(out / name for name in settings["classes"] if (out / name).is_dir())]
    size = 0
    for folder in folders:
        with os.scandir(folder) as entries:
            size += sum(entry.stat().st_size for entry in entries if entry.name.endswith(ends))
    return size
