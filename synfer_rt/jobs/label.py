"""Labels for images that exist, by the vote of a bundle's annotators.

The result is a table with a line for each image, in the order of the dataset; one that cannot be
read has a line too, which says why. So has one whose label is not understood: a label that nobody
knows is never accepted, for the image may show no face at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from synfer_rt.data.datasets import Dataset, Item
from synfer_rt.data.datasets.items import load
from synfer_rt.data.label_table import Record, Table, Tally
from synfer_rt.jobs import runner
from synfer_rt.judging.acceptance import Accept
from synfer_rt.judging.voting import Verdict, vote
from synfer_rt.records import filled

if TYPE_CHECKING:
    from synfer_rt.bundle import Bundle
    from synfer_rt.judging.annotators import Annotators

_READERS = 4


def label_images(
    dataset: Dataset,
    ensemble: Annotators,
    table: Table,
    accept: Accept,
    batch: int,
    on_progress: Callable[[int], None] = lambda images: None,
) -> Tally:
    """Label the images of `dataset` that `table` does not have yet, `batch` at a time; finish it.

    A label that the dataset gives counts as the wanted one, if the bundle knows it. What the table
    has is shown to `accept` first, so that it decides as if nothing had interrupted the run.
    `on_progress` is given the number of images labelled so far. See `runner.run` for interruptions
    and errors.
    """
    tally = Tally()
    for line in table.records():
        tally.add(line)
        if not line["error"] and not line["label_problem"]:
            accept(Verdict(line["label"], line["probabilities"], line["rectified"]))

    def count(lines: list[Record]) -> None:
        for line in lines:
            tally.add(line)
        on_progress(lines[-1]["index"] + 1)

    lines = _lacking(dataset, ensemble, table, accept, batch)
    runner.run(ensemble.bundle, lines, table.write, table, count)
    return tally


def _lacking(
    dataset: Dataset, ensemble: Annotators, table: Table, accept: Accept, batch: int
) -> Generator[list[Record]]:
    """The lines that `table` lacks, a piece at a time: of images, then of what is left out."""
    items = dataset.items
    first = max(table.done, len(items))
    yield from _labelled(items, table, ensemble, accept, batch)
    left_out = [
        filled(table.form, _unread(first + i, entry.name, entry.reason))
        for i, entry in enumerate(dataset.skipped[first - len(items) :])
    ]
    if left_out:
        yield left_out


def _labelled(
    items: Sequence[Item], table: Table, ensemble: Annotators, accept: Accept, batch: int
) -> Generator[list[Record]]:
    """The lines of the items that `table` lacks, as they come out of the engines."""
    first = table.done
    size = ensemble.at_once(min(batch, max(len(items) - first, 1)))
    with closing(_read(items, first, size, batch, ensemble.bundle.image_size)) as pieces:
        for images in pieces:
            part = items[first : first + len(images)]
            said = _records(part, images, first, ensemble, accept, size)
            yield [filled(table.form, fields) for fields in said]
            first += len(part)


def _records(
    items: Sequence[Item],
    images: Sequence[np.ndarray | str],
    first: int,
    ensemble: Annotators,
    accept: Accept,
    size: int,
) -> list[Record]:
    """What `accept` and the engines, `size` images at a time, say of some images."""
    bundle = ensemble.bundle
    records: list[Record] = [
        _unread(first + i, item.name, str(image))
        for i, (item, image) in enumerate(zip(items, images, strict=True))
    ]
    sound = [i for i, image in enumerate(images) if isinstance(image, np.ndarray)]
    if not sound:
        return records
    # Always as many, for a runtime may compile an engine anew for each size.
    padded = sound + sound[-1:] * (size - len(sound))
    pixels = np.stack([np.asarray(images[i]) for i in padded])
    opinions = ensemble.opinions(pixels)
    problems = [label_problem(items[i], bundle) for i in padded]
    wanted = [
        items[i].label if why is None else None for i, why in zip(padded, problems, strict=True)
    ]
    verdicts = vote(opinions, bundle.label_scheme, wanted)
    aus = ensemble.aus(pixels)
    for row, i in enumerate(sound):
        verdict, problem = verdicts[row], problems[row]
        accepted = accept(verdict) if problem is None else False
        records[i] = {
            "index": first + i,
            "file_name": items[i].name,
            "given_label": items[i].label,
            "written_label": items[i].written,
            "label_problem": problem,
            "label": verdict.label,
            "probabilities": verdict.probabilities,
            "rectified": verdict.rectified,
            "asked": accepted is not None,
            "accepted": accepted,
            "votes": {opinion.annotator: opinion.best(row) for opinion in opinions},
            "aus": None if aus is None else _named(aus[row], bundle.au_names),
        }
    return records


def _unread(index: int, name: str, why: str) -> Record:
    return {"index": index, "file_name": name, "error": why}


def label_problem(item: Item, bundle: Bundle) -> str | None:
    """Why the dataset's label of an image cannot be checked; None if it can, or there is none."""
    if item.not_understood:
        return item.problem
    if item.label is not None and item.label not in bundle.classes:
        return f"{bundle.name} does not know the class {item.label}"
    return None


def _named(aus: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    return {name: round(float(x), 4) for name, x in zip(names, aus, strict=True)}


def _read(
    items: Sequence[Item], first: int, size: int, batch: int, image_size: tuple[int, int]
) -> Generator[list[np.ndarray | str]]:
    """The images of the items from `first` on, or why one cannot be read, `size` at a time.

    A batch of the next ones is read while these are used.
    """
    pool = ThreadPoolExecutor(_READERS, "read")
    coming = iter(items[first:])
    ahead: deque[Future[Any]] = deque()
    try:
        for _ in range(first, len(items), size):
            room = size + batch - len(ahead)
            ahead.extend(pool.submit(load, item, image_size) for item in islice(coming, room))
            yield [ahead.popleft().result() for _ in range(min(size, len(ahead)))]
    finally:
        pool.shutdown(cancel_futures=True)
