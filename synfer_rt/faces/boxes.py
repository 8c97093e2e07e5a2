"""Boxes around faces, in pixels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A part of an image in pixels. `left` and `top` may be outside the image."""

    left: float
    top: float
    width: float
    height: float

    @property
    def area(self) -> float:
        """The number of pixels in it."""
        return self.width * self.height

    @property
    def centre(self) -> tuple[float, float]:
        """The x and y of its middle."""
        return self.left + self.width / 2, self.top + self.height / 2

    @property
    def fragment(self) -> str:
        """The box as the end of a file name (W3C Media Fragments, 4.2.2)."""
        numbers = (self.left, self.top, self.width, self.height)
        return "#xywh=" + ",".join(str(round(number)) for number in numbers)

    def holds(self, point: tuple[float, float]) -> bool:
        """Whether a point (x, y) is in it."""
        x, y = point
        right, bottom = self.left + self.width, self.top + self.height
        return self.left <= x <= right and self.top <= y <= bottom

    def overlap(self, other: Box) -> float:
        """The part of both boxes together that is in each of them, 0 to 1 (Jaccard's index)."""
        width = _shared(self.left, self.width, other.left, other.width)
        shared = width * _shared(self.top, self.height, other.top, other.height)
        whole = self.area + other.area - shared
        return shared / whole if whole else 0.0


def _shared(start: float, length: float, other: float, other_length: float) -> float:
    """The length that two intervals share."""
    return max(0.0, min(start + length, other + other_length) - max(start, other))
