"""What decides the images that augmentation adds, and which original each of them starts from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from synfer_rt import ranges
from synfer_rt.data.datasets import Item
from synfer_rt.errors import UserError
from synfer_rt.faces.alignment import Aligner

_MOST_ATTEMPTS = 1 << 20
"""Their keys are int64; nobody waits for so many."""


@dataclass(frozen=True)
class Augmentation:
    """What decides the additions.

    `additions` are their labels, in the order in which they follow the `originals`. `noise_scale`
    multiplies the posterior's standard deviation, which is small: 1 gives near copies. With
    `repair_steps` the part `repair_strength` in (0, 1) of the noise schedule is run in that many
    steps; 0 repairs nothing. If the vote accepts none of `attempts`, the one with the highest
    probability of the class is kept, and not accepted. `decode_originals` passes these through the
    VAE too, so that size and blur do not reveal which images were added. What is made of a grey
    original is grey. With an `aligner` the originals are their aligned faces. Raises UserError for
    a number outside its range.
    """

    originals: tuple[Item, ...] = field(repr=False)
    additions: tuple[str, ...] = field(repr=False)
    noise_scale: float
    repair_steps: int
    repair_strength: float
    attempts: int
    seed: int
    decode_originals: bool = False
    aligner: Aligner | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        ranges.flag("decode_originals", self.decode_originals)
        for name in ("noise_scale", "repair_steps", "repair_strength", "attempts", "seed"):
            object.__setattr__(self, name, ranges.plain(getattr(self, name)))
        strength = self.repair_strength
        within = ranges.is_real(strength, 0, 1) and strength not in (0, 1)
        for name, good, allowed in (
            ("noise_scale", ranges.is_real(self.noise_scale, 0, 1000), "a number of 0 to 1000"),
            ("repair_steps", ranges.is_whole(self.repair_steps), "a whole number of 0 or more"),
            ("repair_strength", within, "a number above 0 and below 1"),
            (
                "attempts",
                ranges.is_whole(self.attempts, 1, _MOST_ATTEMPTS),
                f"a whole number of 1 to {_MOST_ATTEMPTS}",
            ),
            ("seed", ranges.is_whole(self.seed), "a whole number of 0 to 2^63 - 1"),
        ):
            if not good:
                raise UserError(f"`{name}` must be {allowed}, got {getattr(self, name)!r}.")

    @property
    def count(self) -> int:
        """Images of the whole output."""
        return len(self.originals) + len(self.additions)

    def source(self, index: int, attempt: int) -> Item:
        """The original that addition `index` starts from: the class's images take turns."""
        addition = index - len(self.originals)
        members = self._members[self.additions[addition]]
        return self.originals[members[(self._ordinals[addition] + attempt) % len(members)]]

    @cached_property
    def _members(self) -> dict[str, list[int]]:
        """The indices of each class's originals."""
        members: dict[str, list[int]] = {}
        for i, item in enumerate(self.originals):
            members.setdefault(item.label or "", []).append(i)
        return members

    @cached_property
    def _ordinals(self) -> list[int]:
        """Each addition's number within its class."""
        counts: dict[str, int] = {}
        ordinals: list[int] = []
        for label in self.additions:
            ordinals.append(counts.get(label, 0))
            counts[label] = ordinals[-1] + 1
        return ordinals
