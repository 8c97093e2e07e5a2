"""What sampling makes: images with their requests and labels, which notebooks can show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synfer_rt.data import notebook
from synfer_rt.sampling.requests import Request

_SHOWN = 64
"""Samples of a list that a notebook shows."""


@dataclass(frozen=True)
class Sample:
    """A finished image and the vote of the bundle's annotators on it.

    `image` is uint8 [H, W, 3]. `probabilities` are the mean of the annotators, by class of the
    bundle's label scheme. `best` is the likeliest class, the requested one if several are equally
    likely. `label` is the requested class, or `best` if the vote replaced it (`rectified`); a
    single annotator replaces no label. `accepted` says whether the vote and most annotators see the
    requested class (`Verdict.agrees`), or whether the sample passes the accept rate or threshold of
    its run. A bundle without annotators gives no probabilities, an empty `best`, and accepts
    nothing. A `broken` image is flat or was not finite, and is never accepted. `backend` is the
    name of the backend that made the image. `label_set` are the classes that the run's calibration
    leaves, None without one.
    """

    request: Request
    image: np.ndarray
    label: str
    rectified: bool
    probabilities: dict[str, float]
    best: str
    accepted: bool
    broken: bool = False
    backend: str = ""
    label_set: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        said = f"label={self.label!r}, accepted={self.accepted}"
        return f"Sample(index={self.request.index}, {said}, image {height}x{width})"

    def _repr_html_(self) -> str:
        return notebook.figures([self.figure()])

    def figure(self) -> notebook.Figure:
        """The image for a notebook, with label, acceptance and vote below it."""
        seen = notebook.percentages(self.probabilities) or "no annotators"
        kept = "accepted" if self.accepted else "not accepted"
        asked = self.request.label
        label = f"{asked}, by the vote {self.label}" if self.rectified else self.label
        units = {name: value for name, value in self.request.aus.items() if value}
        listed = ", ".join(f"{name} {value:.2f}" for name, value in units.items())
        title = "\n".join(filter(None, (self.request.prompt, listed)))
        return notebook.Figure(self.image, (label, kept, seen), title)


class Samples(list[Sample]):
    """Samples in the order of their indices; a notebook shows the first of them as pictures."""

    def _repr_html_(self) -> str:
        if not self:
            return notebook.figures([], "no samples")
        more = f"and {len(self) - _SHOWN} more" if len(self) > _SHOWN else ""
        return notebook.figures([sample.figure() for sample in self[:_SHOWN]], more)
