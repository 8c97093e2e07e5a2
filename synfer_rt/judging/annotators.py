"""The annotators of a bundle, run on images: FERAnno, the classifiers, and the AU reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import FERANNO
from synfer_rt.errors import UserError
from synfer_rt.judging.rounding import DECIMALS
from synfer_rt.judging.voting import Opinion, Verdict, vote

AU_READER, ENCODER = "au-reader", "encoder"


@dataclass(frozen=True)
class Seen:
    """What the annotators say of B images.

    `dimensions` are valence and arousal float64 [B] in [-1, 1], each the mean of the classifiers
    that read it; a dimension that none reads is missing.
    """

    opinions: list[Opinion]
    dimensions: Mapping[str, np.ndarray]

    def problem(self, row: int) -> str | None:
        """Why image `row` cannot be labelled: an answer that is not finite; None if it can."""
        for opinion in self.opinions:
            if not np.isfinite(opinion.probabilities[row]).all():
                return (
                    f"{opinion.annotator} gives numbers for it that are not finite; build it in "
                    "float32, or leave the image out"
                )
        return None


class Annotators:
    """The engines of a bundle that label images.

    `members` are the names of those that vote: the classifiers, then FERAnno; an engine with
    several heads has several votes. `reads_aus` says whether there is an AU reader. Raises
    UserError for a bundle without members.
    """

    def __init__(self, engines: LoadedEngines) -> None:
        self.engines, self.bundle = engines, engines.bundle
        self.members = tuple(head.annotator for _, head in self.bundle.heads)
        if not self.members:
            raise UserError(
                f"{self.bundle.name} has neither a classifier nor FERAnno, so it cannot label "
                "images; build it with one, or choose another `bundle`."
            )
        self.reads_aus = AU_READER in self.bundle.engines

    def load(self, batch: int) -> None:
        """Load the engines now, for `batch` images. Raises UserError when one does not load."""
        rows = self.at_once(batch)
        self.engines.load(
            (*self.bundle.annotators, *((AU_READER,) if self.reads_aus else ())), rows
        )

    def at_once(self, batch: int) -> int:
        """How many images of a batch the engines take at once (`LoadedEngines.piece_size`)."""
        readers = (AU_READER,) if self.reads_aus else ()
        encoders = (ENCODER,) if FERANNO in self.members else ()
        return self.engines.piece_size(batch, *self.bundle.annotators, *readers, *encoders)

    def opinions(self, images: np.ndarray, latents: np.ndarray | None = None) -> list[Opinion]:
        """What each member says of images float32 [B, 3, H, W] in [0, 1].

        `latents` [B, C, h, w] are what the images were decoded from; FERAnno reads them. Without
        them the images are encoded, and FERAnno reads the mean of the posterior.
        """
        return self.see(images, latents).opinions

    def see(self, images: np.ndarray, latents: np.ndarray | None = None) -> Seen:
        """What each member says of images, and the dimensions read; see `opinions`.

        An engine runs once, whatever the number of its heads.
        """
        opinions: list[Opinion] = []
        read: dict[str, list[np.ndarray]] = {}
        for engine in self.bundle.annotators:
            spec = self.bundle.engines[engine]
            if engine == FERANNO:
                if latents is None:
                    latents = self.engines.run_in_pieces(ENCODER, "images", images)["mean"]
                outputs = self.engines.run_in_pieces(engine, "latents", latents)
            else:
                outputs = self.engines.run_in_pieces(engine, "images", images)
            for head in spec.heads:
                shares = outputs[head.output]
                opinions.append(Opinion(head.annotator, head.label_scheme, shares, head.mapping))
            for name in spec.dimensions:
                read.setdefault(name, []).append(outputs[name].astype(np.float64))
        means = {name: np.mean(read[name], 0).round(DECIMALS) for name in self.bundle.dimensions}
        return Seen(opinions, means)

    def judge(
        self,
        images: np.ndarray,
        wanted: Sequence[str | None],
        latents: np.ndarray | None = None,
        rectify: bool = True,
    ) -> list[Verdict]:
        """The vote on each image; see `opinions` and `voting.vote`."""
        opinions = self.opinions(images, latents)
        return vote(opinions, self.bundle.label_scheme, wanted, rectify)

    def aus(self, images: np.ndarray) -> np.ndarray | None:
        """AU intensities float32 [B, A] in [0, 1] of images; None without an AU reader."""
        if not self.reads_aus:
            return None
        return self.engines.run_in_pieces(AU_READER, "images", images)["aus"]
