"""How the images of a dataset are made: at once, in parts, or on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synfer_rt import ranges
from synfer_rt.data.image_format import ImageFormat
from synfer_rt.data.storage.addresses import Address, address_of
from synfer_rt.data.writers.shards import part_of
from synfer_rt.errors import UserError
from synfer_rt.jobs.destination import Destination
from synfer_rt.jobs.progress import OnProgress
from synfer_rt.ray.cluster import check_address


@dataclass(frozen=True)
class Making:
    """The arguments that `Model.write` and `Model.write_plan` share; `Model.write` describes them.

    Raises UserError for values that do not fit.
    """

    part: tuple[int, int] | None
    wait: float
    ray: str | None
    batch: int
    resume: bool
    mix_backends: bool
    on_progress: OnProgress | None

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
