"""Whether samples are copies: their distances to the nearest training renders.

Distances are Euclidean between `diversity.pooled_features` of the network that reads age, gender
and ancestry, the only one of the judges that tells people apart. Known copies, which are training
renders through the VAE, show which distance is near.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu
from torch import nn

from reference import renders
from reference.evaluation import statistics
from reference.evaluation.diversity import pooled_features
from reference.evaluation.pages import figure
from synfer_rt.evaluation.neighbours import Nearest, nearest
from synfer_rt.export.training import cache

HELD, COPIES = "held-out renders through the VAE", "training renders through the VAE"
"""What samples are compared with: images that cannot be copies, and images that are.

All three come out of the decoder, so that it causes no difference between them.
"""


def training_features(network: nn.Module, data: renders.Renders, work: Path) -> np.ndarray:
    """Features float32 [m, d] of all renders that are trained on, kept in `work`."""
    rows = data.rows(held_out=False)
    weights = [cache.digest(weight.numpy()) for weight in network.state_dict().values()]

    def compute(numbers: np.ndarray) -> dict[str, np.ndarray]:
        images = np.asarray(data.images[rows[numbers]])
        return {"features": pooled_features(network, images).astype(np.float32)}

    folder = work / f"features-{cache.key(data.key, weights)}"
    return cache.rows(folder, len(rows), compute, 1024, "features of the training renders")[
        "features"
    ]


def nearest_render(network: nn.Module, images_u8: np.ndarray, training: np.ndarray) -> Nearest:
    """The nearest of `training` features [m, d] to each of uint8 images or its mirror image."""
    sides = (images_u8, images_u8[:, :, ::-1])
    one, other = (nearest(pooled_features(network, side), training) for side in sides)
    return one.nearer(other)


def same_person(features: np.ndarray, people: np.ndarray) -> dict:
    """How often the nearest other image shows the same person, and how often by chance.

    `features` [n, d] are those of images of `people`, numbers int64 [n]. An image whose person has
    no other does not count.
    """
    apart = cdist(features, features)
    np.fill_diagonal(apart, np.inf)
    _, whose, images = np.unique(people, return_inverse=True, return_counts=True)
    others = images[whose] - 1
    right = people[apart.argmin(1)] == people
    some = others > 0
    return {
        "share": statistics.share(right[some], people[some]),
        "chance": float(np.mean(others[some]) / (len(people) - 1)),
    }


def compared(near: Mapping[str, Nearest], samples: Sequence[str], originals: np.ndarray) -> dict:
    """Distances of every set in `near`; those named in `samples` are compared with HELD.

    `originals` int64 [n] are the rows of the renders that COPIES were made of. `within` is the
    distance that holds 95 % of COPIES, `as_near` counts the images within it, `p` is that of Mann
    and Whitney's two-sided test against HELD, and `farther` the share of pairs of a sample and one
    of HELD in which the sample lies farther.
    """
    within = float(np.quantile(near[COPIES].distances, 0.95))
    found = {
        name: {
            "images": len(one.distances),
            "median": float(np.median(one.distances)),
            "quantile_5": float(np.quantile(one.distances, 0.05)),
            "least": float(one.distances.min()),
            "as_near": int(np.sum(one.distances <= within)),
        }
        for name, one in near.items()
    }
    for name in samples:
        test = mannwhitneyu(near[name].distances, near[HELD].distances)
        found[name]["p"] = float(test.pvalue)
        pairs = len(near[name].distances) * len(near[HELD].distances)
        found[name]["farther"] = float(test.statistic / pairs)
    return {
        "within": within,
        "originals_found": float(np.mean(near[COPIES].rows == originals)),
        "sets": found,
    }


def reading(found: Mapping) -> list[str]:
    """A sentence on each set of samples in what `compared` found."""
    sets, held = found["sets"], found["sets"][HELD]
    lines = []
    for name, one in sets.items():
        if "p" not in one:
            continue
        side, doubt = "nearer than" if one["farther"] < 0.5 else "farther than", ""
        if one["p"] >= 0.05:
            side, doubt = "neither nearer nor farther than", ", so far as so many can tell"
        lines.append(
            f"{name[0].upper()}{name[1:]} lie {side} {HELD} do{doubt}: median {one['median']:.3f} "
            f"against {held['median']:.3f} (Mann-Whitney p = {one['p']:.2g}). {one['as_near']} "
            f"of {one['images']} lie within the distance that holds 95 % of the copies, and so do "
            f"{held['as_near']} of {held['images']} {HELD}."
        )
    return lines


def draw_neighbours(found: Mapping[str, Nearest]):
    """Cumulative distributions of the distances, as a matplotlib figure."""
    page, axes = figure(6.5, 3.8)
    for name, near in found.items():
        axes.ecdf(near.distances, label=name)
    axes.set(
        xlabel="distance to the nearest training render, in the attribute reader's features",
        ylabel="share of images that are as near",
        xlim=(0, None),
    )
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return page
