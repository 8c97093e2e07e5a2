"""Whether samples are as diverse as renders: distances in the judge's features.

Features are float [n, d], one row an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from reference import classifiers
from reference.evaluation import statistics
from synfer_rt.evaluation.diversity import within_class_distance
from synfer_rt.evaluation.frechet import frechet_distance
from synfer_rt.evaluation.moments import Moments

SPLITS = 40
"""Number of random splits of the held-out renders into two sides."""


def pooled_features(network: nn.Module, images_u8: np.ndarray) -> np.ndarray:
    """Features float64 [n, d] of uint8 images: a judge's last maps, averaged over positions."""
    assert isinstance(network, nn.Sequential)
    flatten = next(i for i, layer in enumerate(network) if isinstance(layer, nn.Flatten))
    with torch.no_grad():
        parts = [
            network[:flatten](classifiers.as_input(images_u8[i : i + 256])).mean((2, 3))
            for i in range(0, len(images_u8), 256)
        ]
    return torch.cat(parts).double().numpy()


@dataclass(frozen=True)
class Held:
    """Features [m, d] of held-out renders, and SPLITS pairs of sides, row numbers int64 [size]."""

    features: np.ndarray
    splits: list[tuple[np.ndarray, np.ndarray]]

    @property
    def size(self) -> int:
        """Renders on a side."""
        return len(self.splits[0][0])

    def frechet(self, features: np.ndarray | None = None) -> np.ndarray:
        """Squared Fréchet distances to the second side of each split, float64 [SPLITS].

        They are measured from `features` [n, d] or, if None, from the split's first side.
        """
        return np.array(
            [
                frechet_distance(
                    Moments.of(self.features[first] if features is None else features),
                    Moments.of(self.features[second]),
                )
                for first, second in self.splits
            ]
        )


def held_out(features: np.ndarray, people: np.ndarray, most: int) -> Held:
    """Renders' features [m, d] with random splits into sides of equal size, at most `most`.

    `people` int64 [m] numbers the persons; none is on both sides.
    """
    rng = np.random.default_rng(0)
    sides = [statistics.parted(people, 2, rng) for _ in range(SPLITS)]
    size = min(most, *(len(side) for pair in sides for side in pair))
    return Held(features, [(first[:size], second[:size]) for first, second in sides])


def distances(
    samples: np.ndarray, classes: np.ndarray, held: np.ndarray, held_classes: np.ndarray,
    people: np.ndarray,
) -> dict:  # fmt: skip
    """Fréchet and pairwise distances of samples and of held-out renders of `people` int64 [m].

    The Fréchet distances are means and standard deviations over splits of the renders: from samples
    and from a split's first side to its second, with equally many images, and their difference.
    The pairwise distances have half-widths; they use one render of each person.
    """
    real = held_out(held, people, len(samples))
    made, floor = real.frechet(samples[: real.size]), real.frechet()

    def pairwise(some: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        def of(rows: np.ndarray) -> float:
            return within_class_distance(some[rows], labels[rows])

        return of(np.arange(len(some))), statistics.bootstrap(of, len(some))

    rows = statistics.first_of_each(people)[: len(samples)]
    return {
        "images": real.size,
        "splits": SPLITS,
        "frechet": {
            "samples": statistics.spread(made),
            "renders": statistics.spread(floor),
            "difference": statistics.spread(made - floor),
            "farther": float(np.mean(made > floor)),
        },
        "pairwise": {
            "samples": pairwise(samples, classes),
            "renders": pairwise(held[rows], held_classes[rows]),
        },
    }
