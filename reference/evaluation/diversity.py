"""Whether samples are as varied as renders, and new: distances in the judge's features.

Features are float [n, d], one row an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import nn

from reference import cache, classifiers, renders
from reference.evaluation import statistics
from reference.evaluation.pages import figure


def pooled_features(judge: nn.Module, images_u8: np.ndarray) -> np.ndarray:
    """Features float64 [n, d] of uint8 images: the judge's last maps, averaged over places."""
    assert isinstance(judge, nn.Sequential)
    flatten = next(i for i, layer in enumerate(judge) if isinstance(layer, nn.Flatten))
    with torch.no_grad():
        parts = [
            judge[:flatten](classifiers.as_input(images_u8[i : i + 256])).mean((2, 3))
            for i in range(0, len(images_u8), 256)
        ]
    return torch.cat(parts).double().numpy()


def training_features(judge: nn.Module, data: renders.Renders, work: Path) -> np.ndarray:
    """Features float32 [m, d] of all renders that are trained on, kept in `work`."""
    rows = data.rows(held_out=False)
    weights = [cache.digest(weight.numpy()) for weight in judge.state_dict().values()]

    def compute(numbers: np.ndarray) -> dict[str, np.ndarray]:
        images = np.asarray(data.images[rows[numbers]])
        return {"features": pooled_features(judge, images).astype(np.float32)}

    folder = work / f"features-{cache.key(data.key, weights)}"
    return cache.rows(folder, len(rows), compute, 1024, "features of the training renders")[
        "features"
    ]


def distances(
    samples: np.ndarray, classes: np.ndarray, held: np.ndarray, held_classes: np.ndarray,
    half: np.ndarray,
) -> dict:  # fmt: skip
    """Fréchet and pairwise distances of samples and of held-out renders, with half-widths.

    `half` bool [m] parts the held-out renders in two: samples and the first half are compared
    with the second, as many images on each side.
    """
    first, second = held[half], held[~half]
    count = min(len(samples), len(first), len(second))
    second = second[:count]

    def frechet(some: np.ndarray) -> tuple[float, float]:
        def of(rows: np.ndarray) -> float:
            return statistics.frechet_distance(some[rows], second[rows])

        return of(np.arange(count)), statistics.bootstrap(of, count)

    def pairwise(some: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        def of(rows: np.ndarray) -> float:
            return statistics.diversity(some[rows], labels[rows])

        count = min(len(samples), len(held))
        return of(np.arange(count)), statistics.bootstrap(of, count)

    return {
        "images": count,
        "frechet": {"samples": frechet(samples), "renders": frechet(first)},
        "pairwise": {
            "samples": pairwise(samples, classes),
            "renders": pairwise(held, held_classes),
        },
    }


@dataclass(frozen=True)
class Nearest:
    """The nearest of some stock: row numbers int64 [n] and Euclidean distances float64 [n]."""

    rows: np.ndarray
    distances: np.ndarray

    def nearer(self, other: Nearest) -> Nearest:
        """The nearer of two for each query."""
        mine = self.distances <= other.distances
        return Nearest(
            np.where(mine, self.rows, other.rows),
            np.where(mine, self.distances, other.distances),
        )

    def summary(self, count: int) -> dict[str, float]:
        """Median, 5 % quantile, and the least of `count` of the distances, expected.

        The least of more is less; only that of as many can be compared.
        """
        left = np.arange(len(self.distances), 0, -1)
        first = np.minimum(1, count / left)  # of those left, the nearest is among the `count`
        none_nearer = np.cumprod([1, *(1 - first[:-1])])
        return {
            "median": float(np.median(self.distances)),
            "quantile_5": float(np.quantile(self.distances, 0.05)),
            "least": float(np.sum(none_nearer * first * np.sort(self.distances))),
        }


def nearest(queries: np.ndarray, stock: np.ndarray, at_once: int = 8192) -> Nearest:
    """For each query [n, d] the nearest row of the stock [m, d]."""
    rows, least = np.zeros(len(queries), np.int64), np.full(len(queries), np.inf)
    for begin in range(0, len(stock), at_once):
        found = cdist(queries, stock[begin : begin + at_once])
        best = found.argmin(1)
        values = found[np.arange(len(queries)), best]
        nearer = values < least
        rows[nearer], least[nearer] = begin + best[nearer], values[nearer]
    return Nearest(rows, least)


def draw_neighbours(found: dict[str, Nearest]):
    """Cumulative distributions of the distances, as a matplotlib figure."""
    page, axes = figure(6.5, 3.8)
    for name, near in found.items():
        axes.ecdf(near.distances, label=name)
    axes.set(
        xlabel="distance to the nearest training render, in the judge's features",
        ylabel="share of images that are as near",
        xlim=(0, None),
    )
    axes.legend()
    return page
