"""Features of a stock's images, kept in files that grow, so that no image is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from synfer_rt.data.images import read_image
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import disk_errors
from synfer_rt.data.writers.working_copy import shown
from synfer_rt.errors import UserError
from synfer_rt.jobs.coreset.stock import Stock, run_index
from synfer_rt.jobs.evaluation.images import pieces
from synfer_rt.networks.image_network import ImageNetwork
from synfer_rt.records import Record


class ClassFeatures:
    """The features of the images of a class, in the order of their indices, in `file`.

    An image is a row: its index in the run that made it, int64, and its features, float32
    [dimensions].
    """

    def __init__(self, file: Path, dimensions: int) -> None:
        self._file = file
        self._type = np.dtype([("index", "<i8"), ("features", "<f4", (dimensions,))])
        size = file.stat().st_size if file.exists() else 0
        self._known = size // self._type.itemsize
        self._cut(self._known)  # a row that was cut short goes
        self._there = self.indices.copy()
        self._asked = 0

    def _cut(self, rows: int) -> None:
        with self._file.open("ab") as stream:
            stream.truncate(rows * self._type.itemsize)

    def lacks(self, index: int) -> bool:
        """Whether the next image of the class is not there yet; ask it of each image in order."""
        place, self._asked = self._asked, self._asked + 1
        if place < self._known and self._there[place] == index:
            return False
        if place < self._known:  # what follows is of another run, or was lost with the power
            self._known = place
            self._cut(place)
        return True

    def add(self, indices: list[int], features: np.ndarray) -> None:
        """Append rows of images with these indices and features [n, dimensions]."""
        rows = np.empty(len(indices), self._type)
        rows["index"], rows["features"] = indices, features
        with self._file.open("ab") as stream:
            stream.write(rows.tobytes())

    @property
    def rows(self) -> np.ndarray:
        """All rows, mapped from the file."""
        if not self._file.stat().st_size:
            return np.empty(0, self._type)
        return np.memmap(self._file, self._type, "r")

    @property
    def indices(self) -> np.ndarray:
        """The indices of the images, int64 [n]."""
        return self.rows["index"]

    @property
    def features(self) -> np.ndarray:
        """Their features, float32 [n, dimensions]."""
        return self.rows["features"]


def files_of(out: Path) -> Iterator[Path]:
    """The files with features in the own folder of the core-set in `out`."""
    return run_file.folder(out).glob("features-*.partial")


def compute_features(
    stock: Stock, network: ImageNetwork, out: Path, on_image: Callable[[int], None]
) -> dict[str, ClassFeatures]:
    """The features of the stock's images by class, those in the own folder of `out` as they are.

    `on_image` is called with the number of images that are done. Raises UserError for an image that
    cannot be read, and when the disk is full.
    """
    folder, names = run_file.folder(out), list(stock.settings["classes"])
    with disk_errors(folder):
        found = {
            name: ClassFeatures(folder / f"features-{names.index(name):03}.partial", network.size)
            for name in stock.counts
        }
        done = 0

        def lacking() -> Iterator[tuple[Record, bytes]]:
            nonlocal done
            for record, content in stock.samples():
                if found[record["label"]].lacks(run_index(record)):
                    yield record, content
                else:
                    done += 1

        for piece in pieces(lacking(), partial(_load, stock.size())):
            if piece.unreadable:
                named = shown(stock.out)
                raise UserError(
                    f"{named} has an image that cannot be read ({piece.unreadable[0]}); "
                    f"`synfer-rt verify {named}` lists what is wrong."
                )
            features = network(piece.images)
            labels = [record["label"] for record, _ in piece.of]
            for label in dict.fromkeys(labels):
                mine = [i for i, other in enumerate(labels) if other == label]
                indices = [run_index(piece.of[i][0]) for i in mine]
                found[label].add(indices, features[mine])
            done += len(labels)
            on_image(done)
    if done != sum(stock.counts.values()):
        named = shown(stock.out)
        raise UserError(
            f"{named} has {done} of {sum(stock.counts.values())} images that were to be read; "
            f"`synfer-rt verify {named}` lists what is wrong."
        )
    return found


def _load(size: tuple[int, int], sample: tuple[Record, bytes]) -> np.ndarray | str:
    try:
        return read_image(sample[1], size)
    except UserError as error:
        return f"number {sample[0]['index']}: {error}"
