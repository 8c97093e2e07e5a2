"""How far a run is, as the times and the files of its shards tell."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synfer_rt.data.writers import run_file, shards_of
from synfer_rt.data.writers.working_copy import shown
from synfer_rt.errors import UserError
from synfer_rt.jobs.verify import settings_of

_WINDOW = 3600.0
"""Seconds whose shards say how fast a run is."""


@dataclass(frozen=True)
class RunStatus:
    """The shards of the run in `path`, by number, of `shards` in all with `shard_size` images.

    `path` is a folder, or an address as text. `there` are whole, `damaged` are not, as far as this
    shows without reading everything, and `missing` are not there. `images` are those of the shards
    that are there, of `count` at most; a run that goes on until enough is accepted may end before
    (`at_most`).

    `images_per_second` is the rate at which shards were finished in the last hour in which any
    were (see the function), and `seconds_left` follows from it; both are None if nothing tells.
    `idle` are the seconds since anything was written. A run is `finished` if all shards are there
    and nothing is left of its making.
    """

    path: Path | str
    format: str
    count: int
    at_most: bool
    shards: int
    shard_size: int
    images: int
    there: tuple[int, ...]
    damaged: tuple[int, ...]
    missing: tuple[int, ...]
    images_per_second: float | None
    idle: float
    finished: bool

    @property
    def complete(self) -> bool:
        """Whether all shards are there."""
        return len(self.there) == self.shards

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the same rate."""
        rate = self.images_per_second
        return (self.count - self.images) / rate if rate else None


def run_status(out: Path) -> RunStatus:
    """The state of the run in `out`. Raises UserError if there is none, or it cannot be read."""
    settings = settings_of(out)
    try:
        return _status(out, settings)
    except OSError as error:
        raise UserError(
            f"{error.filename or out} cannot be read ({error.strerror or error}); correct its "
            "permissions, or check the disk."
        ) from None


def refuse_unfinished(out: Path) -> None:
    """Raise UserError unless the run in `out` is finished, as far as its files show.

    A shard that is there and damaged is no sign of a run that goes on; reading finds it.
    """
    state, named = run_status(out), shown(out)
    if state.finished or (state.damaged and not state.missing and not any(run_file.growing(out))):
        return
    lacking = f" ({len(state.missing)} of its {state.shards} shards are missing)"
    raise UserError(
        f"{named} is not finished{lacking if state.missing else ''}; run its command again with "
        f"`--resume`, or `synfer-rt finish {named}` where all its parts are made."
    )


def _status(out: Path, settings: Mapping[str, Any]) -> RunStatus:
    there: list[int] = []
    damaged: list[int] = []
    missing: list[int] = []
    finished: list[tuple[float, int]] = []
    images = 0
    numbers = range(run_file.shard_count(settings))
    with closing(shards_of(out, settings)) as shards:
        present = shards.present()
        for number in numbers:
            if number not in present:
                missing.append(number)
            elif not shards.is_whole(number):
                damaged.append(number)
            else:
                there.append(number)
                size = len(run_file.shard_indices(settings, number))
                images += size
                if (when := shards.finished_at(number)) is not None:
                    finished.append((when, size))
        joined = len(there) == len(numbers) and shards.is_finished()
    begun = run_file.path(out).stat().st_mtime
    last = max([begun, *(when for when, _ in finished), *_times(out)])
    return RunStatus(
        out,
        settings["format"],
        run_file.count(settings),
        settings.get("accepted_per_class") is not None and len(there) < len(numbers),
        len(numbers),
        int(settings["shard_size"]),
        images,
        tuple(there),
        tuple(damaged),
        tuple(missing),
        images_per_second(begun, finished or [(last, images)]),
        max(0.0, time.time() - last),
        joined and not any(run_file.growing(out)),
    )


def images_per_second(begun: float, finished: Sequence[tuple[float, int]]) -> float | None:
    """The rate of a run that began at `begun`, of whose shards (time, images) are `finished`.

    It is that of the last hour in which any were, and of the time from the last shard before it,
    since shards may take longer. So a pause counts for an hour after it. None without an image.
    """
    last = max(when for when, _ in finished)
    since = max([begun, *(when for when, _ in finished if when <= last - _WINDOW)])
    images = sum(images for when, images in finished if when > since)
    return images / (last - since) if images and last > since else None


def _times(out: Path) -> Iterator[float]:
    """When the unfinished files of the run in `out` were last written to."""
    for file in run_file.growing(out):
        with suppress(FileNotFoundError):  # finished meanwhile
            yield file.stat().st_mtime
