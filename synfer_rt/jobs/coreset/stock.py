"""The images of a run that a core-set may be chosen from, and how many of each class it takes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tarfile import TarError
from typing import Any

from synfer_rt.data.images import size_of
from synfer_rt.data.writers import read, run_file, shards_of
from synfer_rt.data.writers.working_copy import shown
from synfer_rt.errors import UserError
from synfer_rt.jobs.run_status import refuse_unfinished
from synfer_rt.jobs.verify import settings_of
from synfer_rt.records import ORIGINAL, Record
from synfer_rt.sampling.apportionment import apportion

EQUAL, PROPORTIONAL = QUOTAS = ("equal", "proportional")
"""Equally many images of each class, or as many as its part of the stock."""


@dataclass(frozen=True)
class Stock:
    """The images of the finished run in `out` that may be chosen, those accepted or `every` one.

    `counts` are theirs by class, in the order of the run's classes; a class with images of which
    none may be chosen has 0. `digest` changes with the run, and with which of its images are meant.
    """

    out: Path
    settings: Mapping[str, Any]
    every: bool
    counts: Mapping[str, int]
    digest: str

    def has(self, record: Record) -> bool:
        """Whether the image of a record may be chosen."""
        return self.every or bool(record["accepted"])

    def samples(self) -> Iterator[tuple[Record, bytes]]:
        """The images that may be chosen with their records, by index. Raises UserError."""
        with _sound(self.out):
            yield from (sample for sample in read(self.out) if self.has(sample[0]))

    def size(self) -> tuple[int, int]:
        """(H, W) to which images are fitted: of the first that was made, else of the first."""
        first: bytes | None = None
        for record, content in self.samples():
            first = first or content
            if record.get("origin") != ORIGINAL:
                first = content
                break
        with _sound(self.out):
            try:
                return size_of(first or b"")
            except Exception as error:  # each decoder of Pillow raises errors of its own kind
                raise ValueError(str(error)) from None

    def quotas(self, count: int, how: str) -> dict[str, int]:
        """How many images of each class `count` are, by one of QUOTAS.

        A class that has too few for equal quotas gives all, and the others fill up. Raises
        UserError if all together have too few.
        """
        total = sum(self.counts.values())
        if count > total:
            images = run_file.count(self.settings)
            what = f"{total} images" if self.every else f"{total} accepted of {images} images"
            remedy = f"ask for at most {total}" if total else "choose another run"
            if images > total:
                remedy += ", or count all images with `every=True`"
            raise UserError(
                f"{shown(self.out)} has {what}, and `count` asks for {count}; {remedy}."
            )
        sizes = list(self.counts.values())
        found = equal(count, sizes) if how == EQUAL else apportion(count, sizes)
        return dict(zip(self.counts, found, strict=True))


def stock_of(out: Path, every: bool) -> Stock:
    """The stock of the run in `out`, all of whose records are read; images are not decoded.

    Raises UserError for a directory without a run, and for a run that is not finished or damaged.
    """
    settings = settings_of(out)
    refuse_unfinished(out)
    labelled, counts, digest = Counter[str](), Counter[str](), hashlib.sha256()
    deciding = {k: v for k, v in settings.items() if k not in run_file.NOT_COMPARED}
    digest.update(json.dumps([deciding, every], sort_keys=True).encode())
    with _sound(out), closing(shards_of(out, settings)) as shards:
        for record in shards.records(range(run_file.shard_count(settings))):
            label, chosen = record["label"], every or bool(record["accepted"])
            if label not in settings["classes"]:
                raise ValueError(f"{label!r} is no class of the run")
            labelled[label] += 1
            counts[label] += chosen
            digest.update(f"{record['index']} {label} {chosen}\n".encode())
        if labelled.total() != run_file.count(settings):
            raise ValueError(f"it has {labelled.total()} of {run_file.count(settings)} records")
    by_class = {name: counts[name] for name in settings["classes"] if labelled[name]}
    return Stock(out, settings, every, by_class, digest.hexdigest())


def run_index(record: Record) -> int:
    """The number of an image in the run that made it, also of one of a core-set of that run."""
    index = int(record.get("run_index", -1))
    return int(record["index"]) if index < 0 else index


@contextmanager
def _sound(out: Path) -> Generator[None]:
    """Raise what a damaged run raises in the block as UserError."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, TarError) as error:
        named = shown(out)
        raise UserError(
            f"{named} cannot be read ({error}); `synfer-rt verify {named}` lists what is wrong."
        ) from None


def equal(total: int, counts: Sequence[int]) -> list[int]:
    """Numbers that add up to `total`, as equal as `counts`, the most of each, allow.

    `total` is at most the sum of `counts`. What cannot be divided goes to the largest counts, of
    equal ones to the first.
    """
    found, left = [0] * len(counts), total
    order = sorted(range(len(counts)), key=lambda i: (counts[i], -i))
    for place, i in enumerate(order):
        found[i] = min(counts[i], left // (len(counts) - place))
        left -= found[i]
    return found
