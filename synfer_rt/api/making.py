"""How the images of a dataset are made: at once, in parts, or on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict, cast

from synfer_rt import ranges
from synfer_rt.data.image_format import ImageFormat
from synfer_rt.data.storage.addresses import Address, address_of
from synfer_rt.data.writers.shards import part_of
from synfer_rt.errors import UserError
from synfer_rt.jobs.destination import Destination
from synfer_rt.jobs.other_parts import PATIENCE
from synfer_rt.jobs.progress import OnProgress
from synfer_rt.jobs.sample_settings import DEFAULTS, SampleSettings
from synfer_rt.ray.cluster import check_address


class MakingSettings(TypedDict, total=False):
    """The arguments that `Model.write` and `Model.write_plan` share; `Model.write` describes them.

    Leave one out for its default.
    """

    part: tuple[int, int] | None
    wait: float
    ray: str | None
    batch: int
    resume: bool
    mix_backends: bool
    on_progress: OnProgress | None


class WriteSettings(MakingSettings, SampleSettings, total=False):
    """What decides samples, and how they are made."""


@dataclass(frozen=True)
class Making:
    """How a dataset is made, by MakingSettings. Raises UserError for values that do not fit."""

    part: tuple[int, int] | None = None
    wait: float = PATIENCE
    ray: str | None = None
    batch: int = 256
    resume: bool = False
    mix_backends: bool = False
    on_progress: OnProgress | None = None

    def __post_init__(self) -> None:
        ranges.whole("batch", self.batch, 1, None)
        ranges.real("wait", self.wait, 0)
        if self.part is not None:
            part_of(self.part)
        if self.ray is not None:
            check_address(self.ray)
            if self.part is not None:
                raise UserError("`ray` makes all parts of a run; leave out `part`, or `ray`.")

    def check_place(self, out: object) -> None:
        """Raise UserError if the dataset cannot be made like this in `out`."""
        if self.ray is not None and (isinstance(out, Address) or address_of(out) is not None):
            raise UserError(
                "The nodes of a Ray cluster write into a folder that all see, not into a store; "
                "give such a folder as `out` and copy the run, or make it in parts with `part`."
            )

    def destination(
        self, out: Path, format: str, shard_size: int, image_format: ImageFormat
    ) -> Destination:
        """Where a dataset is written, in the directory `out`."""
        return Destination(
            out,
            format,
            resume=self.resume,
            mix_backends=self.mix_backends,
            shard_size=shard_size,
            part=None if self.part is None else part_of(self.part),
            patience=float(self.wait),
            image_format=image_format,
        )


MAKING_DEFAULTS: dict[str, Any] = {one.name: one.default for one in fields(Making)}
WRITE_DEFAULTS: dict[str, Any] = {**DEFAULTS, **MAKING_DEFAULTS}
"""The defaults of MakingSettings and WriteSettings."""


def parted(settings: WriteSettings) -> tuple[Making, SampleSettings]:
    """How samples are made, and what decides them. Raises UserError as Making does."""
    given = cast(dict[str, Any], settings)
    making = {name: value for name, value in given.items() if name in MAKING_DEFAULTS}
    deciding = {name: value for name, value in given.items() if name not in MAKING_DEFAULTS}
    return Making(**making), cast(SampleSettings, deciding)
