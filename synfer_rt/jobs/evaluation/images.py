"""The images that an evaluation reads: of a run and of a dataset, a piece at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from synfer_rt.data.datasets.items import Item, load
from synfer_rt.data.images import read_image, size_of
from synfer_rt.errors import UserError
from synfer_rt.faces.alignment import Aligner
from synfer_rt.jobs.found_samples import SAMPLES, Fault
from synfer_rt.networks.image_network import AT_ONCE
from synfer_rt.records import ORIGINAL, Record

_READERS, _PIECES_AHEAD = 4, 2
One = TypeVar("One")


@dataclass(frozen=True)
class Piece(Generic[One]):
    """Some images float32 [n, 3, H, W] in [0, 1], and what each of them is of."""

    of: list[One]
    images: np.ndarray
    unreadable: list[str]


def pieces(
    source: Iterable[One], reads: Callable[[One], np.ndarray | str]
) -> Generator[Piece[One]]:
    """The images of `source` in its order, which `reads` makes ahead; texts say why it cannot."""
    waiting: deque[tuple[list[One], list[Future[np.ndarray | str]]]] = deque()
    every, pool = iter(source), ThreadPoolExecutor(_READERS, "read")
    try:
        while True:
            part = list(islice(every, AT_ONCE))
            if part:
                waiting.append((part, [pool.submit(reads, one) for one in part]))
            if waiting and (not part or len(waiting) > _PIECES_AHEAD):
                yield _piece(*waiting.popleft())
            elif not part:
                return
    finally:
        pool.shutdown(cancel_futures=True)


def _piece(of: list[One], coming: list[Future[np.ndarray | str]]) -> Piece[One]:
    found = [future.result() for future in coming]
    sound = [i for i, image in enumerate(found) if isinstance(image, np.ndarray)]
    images = np.stack([np.asarray(found[i]) for i in sound]) if sound else np.zeros((0, 3, 1, 1))
    why = [str(image) for image in found if not isinstance(image, np.ndarray)]
    return Piece([of[i] for i in sound], images, why)


@dataclass
class RunImages:
    """The generated images of the run in `out`, in the order of its files.

    `faults` and `originals` count, once they are read, what is left out: images that are missing or
    damaged, and those that `augment` did not make. `size` is the (H, W) of the images.
    """

    out: Path
    settings: Mapping[str, Any]
    faults: list[str] = field(default_factory=list[str])
    originals: int = 0

    def __iter__(self) -> Iterator[tuple[Record, bytes]]:
        self.faults.clear()
        self.originals = 0
        for found in SAMPLES[self.settings["format"]](self.out, self.settings):
            if isinstance(found, Fault):
                self.faults.append(f"{found.place}: {found.problem}")
            elif found.record is None or found.image is None:
                self.faults.append(f"{found.place}: its record or image cannot be read")
            elif found.record.get("origin") == ORIGINAL:
                self.originals += 1
            elif found.record.get("requested_label") not in self.settings["classes"]:
                self.faults.append(f"{found.place}: its requested label is no class of the run")
            else:
                yield found.record, found.image

    def size(self) -> tuple[int, int]:
        """(H, W) of the first image that can be read. Raises UserError if there is none."""
        for _, png in self:
            try:
                return size_of(png)
            except Exception:  # each decoder of Pillow raises errors of its own kind
                continue
        why = f" ({self.faults[0]})" if self.faults else ""
        raise UserError(
            f"{self.out} has no generated image that can be read{why}; finish the run with its "
            "command and `--resume`, or with `synfer-rt finish`."
        )


def decoded(size: tuple[int, int]) -> Callable[[tuple[Record, bytes]], np.ndarray | str]:
    """What reads the image of a sample, which must have `size`."""

    def read(sample: tuple[Record, bytes]) -> np.ndarray | str:
        try:
            found = size_of(sample[1])
            if found != size:
                return f"it is {found[0]}x{found[1]}, not {size[0]}x{size[1]}"
            return read_image(sample[1], size)
        except UserError as error:
            return str(error)
        except Exception as error:  # each decoder of Pillow raises errors of its own kind
            return str(error)

    return read


def fitted(size: tuple[int, int], aligner: Aligner | None) -> Callable[[Item], np.ndarray | str]:
    """What reads a real image for `size`: cropped at its centre, or with its face aligned."""

    def read(item: Item) -> np.ndarray | str:
        image = load(item, size, aligner)
        return f"{item.name}: {image.rstrip('.')}" if isinstance(image, str) else image

    return read


def first_images(images: RunImages, size: tuple[int, int]) -> np.ndarray:
    """The first AT_ONCE images of a run at most, float32 [n, 3, H, W]; UserError without any."""
    with closing(pieces(images, decoded(size))) as found:
        for piece in found:
            if piece.of:
                return piece.images
    raise UserError(
        f"No image of {images.out} can be read; see what `synfer-rt verify` says of it."
    )
