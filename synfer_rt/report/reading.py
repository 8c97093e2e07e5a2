"""One pass through the images of a source: what the page needs of each is kept, and no more."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from synfer_rt.report.blocks import Files
from synfer_rt.report.columns import Columns
from synfer_rt.report.duplicates import FEATURES, SIDE
from synfer_rt.report.pictures import Picture, picture
from synfer_rt.report.sources import Shown, Source

_THUMBNAILS, _FILES = 1024, 128
"""Files in a block of the page."""
_AHEAD = 64
_BLANK = np.zeros(FEATURES, np.uint8)


@dataclass(frozen=True)
class Reading:
    """What was read of a source with N images, of which the gallery shows G.

    `rows` int64 [G] are the places of the latter among all. `thumbnails` and `files` hold a file
    for each of them, an empty one where there is none; `files` is None if they are too large.
    `features` is uint8 [G, 256], `sizes` int64 [G, 2] with (width, height), 0 where there is no
    picture, and `in_file` bool [G] tells which lie in files of their own.
    """

    source: Source
    columns: Columns
    rows: np.ndarray = field(repr=False)
    thumbnails: Files
    files: Files | None
    features: np.ndarray = field(repr=False)
    sizes: np.ndarray = field(repr=False)
    in_file: np.ndarray = field(repr=False)

    @property
    def present(self) -> np.ndarray:
        """Which images of the gallery have a picture, bool [G]."""
        return self.sizes[:, 0] > 0


@contextmanager
def reading(
    source: Source,
    name: str,
    most: int,
    embed: int,
    on_progress: Callable[[int], None] = lambda images: None,
) -> Generator[Reading]:
    """Read the images of a source; `name` begins the names of its blocks in the page.

    The gallery has at most `most` of them, evenly spread, and holds their files if these are at
    most `embed` bytes. `on_progress` is given the number of images read. Raises UserError.
    """
    rows = _spread(source.count, most)
    with (
        Files(f"{name}-thumbnails", _THUMBNAILS) as thumbnails,
        Files(f"{name}-files", _FILES) as files,
    ):
        columns, total = Columns(), 0
        features = np.zeros((len(rows), SIDE * SIDE), np.uint8)
        sizes = np.zeros((len(rows), 2), np.int64)
        in_file = np.zeros(len(rows), bool)
        for place, (shown, made) in enumerate(_pictured(source, columns, rows, on_progress)):
            thumbnails.add(b"" if made is None else made.thumbnail)
            features[place] = _BLANK if made is None else made.feature
            sizes[place] = (0, 0) if made is None else made.size
            in_file[place] = shown.in_file
            total += 0 if made is None else len(made.content)
            if total <= embed:
                files.add(b"" if made is None else made.content)
            elif files.size:
                files.discard()
        kept = files if total <= embed else None
        yield Reading(source, columns, rows, thumbnails, kept, features, sizes, in_file)


def _spread(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` numbers from 0, evenly spread."""
    if count <= most:
        return np.arange(count)
    return np.arange(most) * count // most


def _pictured(
    source: Source, columns: Columns, rows: np.ndarray, on_progress: Callable[[int], None]
) -> Iterator[tuple[Shown, Picture | None]]:
    """The images of the gallery with their pictures; the records of all go into `columns`.

    Pillow decodes and encodes outside of Python's lock, so as many threads as there are cores help.
    """
    wanted = iter([*rows.tolist(), -1])
    next_one = next(wanted)
    ahead: deque[tuple[Shown, Future[Picture | None]]] = deque()
    with ThreadPoolExecutor(os.cpu_count(), "picture") as pool:
        for number, shown in enumerate(source.images()):
            columns.add(shown.record)
            if number == next_one:
                next_one = next(wanted)
                ahead.append((Shown({}, None, shown.in_file), pool.submit(_picture, shown.content)))
            if len(ahead) > _AHEAD:
                first, future = ahead.popleft()
                yield first, future.result()
            on_progress(number + 1)
        for first, future in ahead:
            yield first, future.result()


def _picture(content: bytes | None) -> Picture | None:
    return None if content is None else picture(content)
