"""Image sizes other than the default, for engines whose height and width are dynamic."""

from __future__ import annotations

from dataclasses import dataclass

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True)
class Sizes:
    """The heights and widths in pixels that engines take, in steps of `multiple_of`.

    `min` and `max` are multiples of it too. Raises ValueError unless there are two such lengths.
    """

    min: int
    max: int
    multiple_of: int

    def __post_init__(self) -> None:
        step = self.multiple_of
        if step < 1 or self.min % step or self.max % step or not 1 <= self.min < self.max:
            raise ValueError(f"there are fewer than two sizes in {self}")

    def __str__(self) -> str:
        return f"{self.min} to {self.max} pixels in steps of {self.multiple_of}"

    def allow(self, size: Size) -> bool:
        """Whether height and width are among these lengths."""
        return all(self.min <= n <= self.max and n % self.multiple_of == 0 for n in size)

    def other(self, size: Size) -> Size:
        """The smallest that is neither square nor `size`."""
        less, more = self.min, self.min + self.multiple_of
        return (more, less) if size != (more, less) else (less, more)

    def axes(self, size: Size, latent: Size) -> dict[str, tuple[int, int, int]]:
        """Smallest, best and largest length of the dynamic axes H, W, h and w of engines.

        `size` is the best one in pixels, `latent` the same in latents.
        """
        factor = size[0] // latent[0]
        images = dict(zip("HW", ((self.min, n, self.max) for n in size), strict=True))
        ends = self.min // factor, self.max // factor
        return images | dict(zip("hw", ((ends[0], n, ends[1]) for n in latent), strict=True))


def format_size(size: Size) -> str:
    """`HxW`, as the command line has it."""
    return f"{size[0]}x{size[1]}"
