"""The annotators of a bundle, run on images: FERAnno, the classifiers, and the AU reader."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synfer_rt.annotate import Opinion, Verdict, vote
from synfer_rt.errors import UserError
from synfer_rt.sampler import Sampler

ANNOTATOR, AU_READER, ENCODER = "annotator", "au-reader", "encoder"


class Ensemble:
    """Every engine of the sampler's bundle that says something of an image.

    `members` are the voting ones, by name: the classifiers, then FERAnno. Raises UserError for a
    bundle that has none.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        engines = sampler.bundle.engines
        self.members = sampler.bundle.classifiers
        if ANNOTATOR in engines:
            self.members += (ANNOTATOR,)
        if not self.members:
            raise UserError(
                f"{sampler.bundle.name} has neither a classifier nor an annotator, so nothing of "
                "it can label an image; build it with one, or choose another with --engines."
            )
        self.reads_aus = AU_READER in engines

    def load(self) -> None:
        """Load the engines. Raises UserError when one does not load."""
        for name in (*self.members, *((AU_READER,) if self.reads_aus else ())):
            self.sampler.engine(name)

    def opinions(self, images: np.ndarray, latents: np.ndarray | None = None) -> list[Opinion]:
        """What each member says of images float32 [B, 3, H, W] in [0, 1].

        `latents` [B, C, h, w] are those that the images were decoded from; FERAnno reads them.
        Images from elsewhere have none: they go through the encoder, to the posterior's mean.
        """
        bundle = self.sampler.bundle
        opinions = []
        for name in self.members:
            if name == ANNOTATOR:
                if latents is None:
                    latents, _ = self.sampler.encode(images)
                outputs = self.sampler._in_pieces(name, "latents", latents)
            else:
                outputs = self.sampler._in_pieces(name, "images", images)
            scheme = bundle.engines[name].label_scheme or bundle.label_scheme
            opinions.append(Opinion(name, scheme, outputs["probabilities"]))
        return opinions

    def judge(
        self,
        images: np.ndarray,
        wanted: Sequence[str | None],
        latents: np.ndarray | None = None,
    ) -> list[Verdict]:
        """The vote on each image; see `opinions` and `annotate.vote`."""
        return self.verdicts(self.opinions(images, latents), wanted)

    def verdicts(self, opinions: Sequence[Opinion], wanted: Sequence[str | None]) -> list[Verdict]:
        """The vote of these opinions, in the bundle's label scheme."""
        return vote(opinions, self.sampler.bundle.label_scheme, wanted)

    def aus(self, images: np.ndarray) -> np.ndarray | None:
        """AU intensities float32 [B, A] in [0, 1], or None for a bundle without an AU reader."""
        if not self.reads_aus:
            return None
        return self.sampler._in_pieces(AU_READER, "images", images)["aus"]
