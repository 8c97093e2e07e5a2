"""Which images of a stock are its core-set, in which order, and the table that says so."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from synfer_rt.coresets.choice import choose
from synfer_rt.coresets.covering import covering
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import disk_errors, write_whole
from synfer_rt.errors import UserError
from synfer_rt.jobs.coreset.features import ClassFeatures

FILE = "coreset.csv"
"""The table, in the core-set's own folder."""


@dataclass(frozen=True)
class Chosen:
    """An image of a core-set.

    `index` is its number in the core-set, `run_index` in the run that made it, and
    `rank` its place in the order of its class, from 0. `radius` is the largest distance of an image
    of the class to the nearest chosen one once it is chosen, and `distance` the mean.
    """

    index: int
    run_index: int
    label: str
    rank: int
    radius: float
    distance: float


def choose_images(
    features: Mapping[str, ClassFeatures],
    quotas: Mapping[str, int],
    method: str,
    seed: int,
    threads: int,
    on_chosen: Callable[[], None],
) -> list[Chosen]:
    """The images of a core-set with so many of each class, by their order in the run.

    Each class is chosen by itself, on `threads` threads. `method` is one of choice.METHODS, and
    random choices of two classes do not follow from each other. What
    `on_chosen` raises, or a signal, ends all of them at their next choice.
    """
    stopped, names = Event(), list(quotas)

    def chosen() -> None:
        if stopped.is_set():
            raise CancelledError
        on_chosen()

    def of_class(label: str) -> list[Chosen]:
        own, indices = features[label].features, features[label].indices
        # A run's classes often take turns, at the same faces: equal draws would choose these again.
        order = choose(method, own, quotas[label], (seed, names.index(label)), chosen)
        found = covering(own, order)
        return [
            Chosen(-1, int(indices[row]), label, rank, *map(float, left))
            for rank, (row, *left) in enumerate(
                zip(order, found.radii, found.distances, strict=True)
            )
        ]

    with ThreadPoolExecutor(threads, "choose") as pool:
        choosing = [pool.submit(of_class, label) for label, quota in quotas.items() if quota]
        try:
            each = [one for done in as_completed(choosing) for one in done.result()]
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    each.sort(key=lambda one: one.run_index)
    return [replace(one, index=i) for i, one in enumerate(each)]


def write_table(out: Path, chosen: list[Chosen]) -> Path:
    """Write the table of the core-set in `out`, whole or not at all; returns its path."""
    text, file = io.StringIO(), run_file.folder(out) / FILE
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Chosen.__annotations__)
    for one in chosen:
        *ids, radius, distance = vars(one).values()
        writer.writerow([*ids, f"{radius:.6g}", f"{distance:.6g}"])
    with disk_errors(file):
        write_whole(file, text.getvalue().encode())
    return file


def read_table(out: Path, quotas: Mapping[str, int]) -> list[Chosen] | None:
    """The table of the core-set in `out` with so many of each class; None if it is not made yet.

    Raises UserError for one that is damaged.
    """
    file = run_file.folder(out) / FILE
    if not file.exists():
        return None
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            chosen = [
                Chosen(
                    int(row["index"]),
                    int(row["run_index"]),
                    row["label"],
                    int(row["rank"]),
                    float(row["radius"]),
                    float(row["distance"]),
                )
                for row in csv.DictReader(lines)
            ]
        if not _is_whole(chosen, quotas):
            raise ValueError("it is another choice")
        return chosen
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{file} is damaged; delete it and continue with `resume=True`, which chooses again."
        ) from None


def _is_whole(chosen: list[Chosen], quotas: Mapping[str, int]) -> bool:
    """Whether these are all images of a core-set, each once, in the order of their indices."""
    counts = Counter(one.label for one in chosen)
    ranked = {(one.label, one.rank) for one in chosen}
    return (
        [one.index for one in chosen] == list(range(len(chosen)))
        and len({one.run_index for one in chosen}) == len(chosen)
        and counts == Counter({label: quota for label, quota in quotas.items() if quota})
        and ranked == {(label, rank) for label, n in counts.items() for rank in range(n)}
    )
