"""Writing the report of one or two sources."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from synfer_rt import ranges
from synfer_rt.data.storage.addresses import address_of
from synfer_rt.data.writers.atomic import check_writable, disk_errors, own
from synfer_rt.errors import UserError
from synfer_rt.jobs.progress import OnProgress, reporter
from synfer_rt.paths import Location, is_folder, local, resolved
from synfer_rt.report.duplicates import nearest
from synfer_rt.report.facts import facts_of
from synfer_rt.report.page import GENERATOR, page
from synfer_rt.report.payload import Run
from synfer_rt.report.reading import reading
from synfer_rt.report.sources import RUN, Source, source

EMBED = 32
"""Megabytes of image files that a page holds, by default."""
GALLERY = 100_000
"""Images that a gallery shows, by default."""
LETTERS = "ab"
_MB = 1_000_000
_HEAD = 1 << 16
"""Bytes in which a report says what it is."""


@dataclass(frozen=True)
class Report:
    """A report that was written: `path` is the page, of `bytes`.

    `images` are those of each source, `shown` those of them in the gallery. `embedded` tells for
    each source whether its image files are in the page.
    """

    path: Path
    bytes: int
    images: tuple[int, ...]
    shown: tuple[int, ...]
    embedded: tuple[bool, ...]


def write_report(
    out: Location,
    other: Location | None = None,
    *,
    page: Location = "report.html",
    embed: int = EMBED,
    gallery: int = GALLERY,
    on_progress: OnProgress | None = None,
) -> Report:
    """Write the report of a finished run or of a table of `label`; of two, side by side.

    `out` and `other` are the directory or address of a run, or a .jsonl or .csv file. The `page` is
    one HTML file for a browser; an earlier report there is replaced. Image files of up to `embed`
    megabytes are in it; if they are larger, the page links to them where they lie in files of their
    own, and else has thumbnails alone. The gallery shows up to `gallery` images, evenly spread.
    Raises UserError for a run that is not finished or is damaged, a page that is none of ours, and
    one among the samples of a run.
    """
    embed = ranges.whole("embed", embed, 0, None)
    gallery = ranges.whole("gallery", gallery, 1, None)
    path = local(page, "page")
    places = [out] if other is None else [out, other]
    with ExitStack() as stack:
        sources = [stack.enter_context(source(_located(place))) for place in places]
        for one in sources:
            _check_page(path, one)
        check_writable(path, "page")
        total = sum(one.count for one in sources)
        report = reporter(on_progress, 0, total)
        runs: list[Run] = []
        for letter, one in zip(LETTERS, sources, strict=False):
            before = sum(run.facts.count for run in runs)
            most = embed * _MB // len(sources), max(gallery // len(sources), 1)
            runs.append(_run(stack, letter, one, most, lambda done, b=before: report(b + done)))
        size = _write(path, runs)
    return Report(
        path,
        size,
        tuple(run.facts.count for run in runs),
        tuple(len(run.read.rows) for run in runs),
        tuple(run.read.files is not None for run in runs),
    )


def _located(place: Location) -> Location:
    """A path as Path; an address stays as it is."""
    return str(place) if address_of(place) is not None else local(place, "out")


def _run(
    stack: ExitStack,
    letter: str,
    one: Source,
    most: tuple[int, int],
    on_progress: Callable[[float], None],
) -> Run:
    """Read a source, count, and compare its images; what is read stays open within `stack`.

    `on_progress` is given a number of images: one is half done when it is read, and done when it is
    compared.
    """
    embed, gallery = most
    reads = reading(one, letter, gallery, embed, lambda images: on_progress(images / 2))
    read = stack.enter_context(reads)
    each = one.count / max(len(read.rows), 1)
    facts = facts_of(read.columns, one.settings)
    found = nearest(
        read.features, read.present, lambda images: on_progress((one.count + images * each) / 2)
    )
    return Run(letter, read, facts, found)


def _check_page(path: Path, one: Source) -> None:
    """Raise UserError for a page among the samples of a run, and one that is no report."""
    if is_folder(path):
        raise UserError(
            f"`page` must be a file, and {path} is a directory; write {path}/report.html."
        )
    samples = one.folder if one.kind == RUN else None
    if samples is not None and resolved(samples) in resolved(path).parents:
        raise UserError(
            f"`page` must not lie among the samples in {one.place}, where readers of datasets find "
            "it; choose a place outside."
        )
    if path.exists() and not _is_report(path):
        raise UserError(f"{path} exists and is no report of synfer-rt; choose another `page`.")


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(_HEAD)


def _write(path: Path, runs: Sequence[Run]) -> int:
    """Write the page so that it never holds anything but all of it; returns its bytes."""
    with disk_errors(path, "page", resumes=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        grown = own(path)
        try:
            with grown.open("wb") as file:
                for part in page(list(runs), path):
                    file.write(part)
                size = file.tell()
            os.replace(grown, path)
        finally:
            grown.unlink(missing_ok=True)
    return size
