"""What features say of generated images, by themselves and beside real ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.errors import UserError
from synfer_rt.evaluation.confusion import share
from synfer_rt.evaluation.diversity import unit, vendi_score, within_class_distance
from synfer_rt.evaluation.feature_set import FeatureSet
from synfer_rt.evaluation.frechet import frechet_distances, without_bias
from synfer_rt.evaluation.kernel_distance import LEAST, kernel_distance
from synfer_rt.evaluation.neighbours import Nearest, manifold, nearest, squared_distances

K = 5
"""The nearest neighbour that is as far as a ball of a manifold reaches."""
CLOSEST = 10
"""Pairs that are listed."""
FALSE_SHARE = 0.01
"""The share of real images that lie nearer to another real one than the thresholds here."""
_AT_ONCE = 1024


def distances(made: FeatureSet, real: FeatureSet) -> dict[str, Any]:
    """FID, KID and the four measures of manifolds; null where there are too few images."""
    growing = made.growing_moments()
    found: dict[str, Any] = {
        "images": {"made": made.count, "real": real.count},
        "dimensions": made.dimensions,
        "fid": None,
        "fid_infinite": None,
        "kid": None,
        "manifold": None,
    }
    if min(made.count, real.count) > 1:
        sound = [moments for moments in growing if moments.count > 1]
        values = frechet_distances(sound, real.moments)
        found["fid"] = values[-1]
        counts = [moments.count for moments in sound]
        if counts[0] >= made.dimensions and len(counts) > 2:
            found["fid_infinite"] = without_bias(counts, values)
    a, b = made.subset.rows, real.subset.rows
    if min(len(a), len(b)) >= LEAST:
        kid = kernel_distance(a, b)
        found["kid"] = {
            "value": kid.value,
            "standard_error": kid.standard_error,
            "blocks": kid.blocks,
            "block_size": kid.size,
        }
    count = min(len(a), len(b))
    if count > K:
        found["manifold"] = {"k": K, "images": count, **vars(manifold(a[:count], b[:count], K))}
    return found


def diversity(features: FeatureSet, classes: Sequence[int]) -> dict[str, Any]:
    """The effective number of images, and the mean distance within a class.

    `classes` are numbers of the classes of all images; -1 is none, and does not count.
    """
    numbers = np.array(classes, np.int64)[features.subset.numbers]
    known = numbers >= 0
    within = within_class_distance(features.subset.rows[known], numbers[known])
    return {
        "images": features.count,
        "vendi": vendi_score(features.unit_moments),
        "within_class_distance": None if np.isnan(within) else within,
        "within_class_images": int(known.sum()),
    }


def to_nearest(made: np.ndarray, real: np.ndarray) -> Nearest:
    """The nearest real image of every generated one, of features [m, d] and [n, d] in files."""
    parts = [
        nearest(made[begin : begin + _AT_ONCE], real) for begin in range(0, len(made), _AT_ONCE)
    ]
    return Nearest(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.distances for part in parts]),
    )


def among_real(real: FeatureSet, people: np.ndarray) -> np.ndarray:
    """The distance of each real image of the subset to the nearest of another person."""
    numbers = real.subset.numbers
    parts = [
        nearest(
            real.subset.rows[begin : begin + _AT_ONCE],
            real.every,
            apart=(people[numbers[begin : begin + _AT_ONCE]], people),
        ).distances
        for begin in range(0, len(numbers), _AT_ONCE)
    ]
    found = np.concatenate(parts)
    return found[np.isfinite(found)]


def neighbours(
    near: Nearest, own: np.ndarray, indices: Sequence[int], names: Sequence[str]
) -> dict[str, Any]:
    """How near generated images lie to real ones, beside how near real ones lie to each other.

    `own` are the distances of `among_real`; the threshold is that up to which FALSE_SHARE of them
    lie.
    """
    found: dict[str, Any] = {
        "median": float(np.median(near.distances)),
        "median_of_real": None,
        "threshold": None,
        "nearer_than_threshold": None,
        "real_nearer_than_threshold": None,
        "closest": _closest(near, "distance", near.distances, indices, names),
    }
    if len(own):
        threshold = float(np.quantile(own, FALSE_SHARE))
        found |= {
            "median_of_real": float(np.median(own)),
            "threshold": threshold,
            "nearer_than_threshold": _within(near.distances, threshold),
            "real_nearer_than_threshold": _within(own, threshold),
        }
    return found


def _within(values: np.ndarray, threshold: float) -> dict[str, Any]:
    """How many distances are at most the threshold, which copies among real images make 0."""
    return share(int((values <= threshold).sum()), len(values))


def _closest(
    near: Nearest, kind: str, values: np.ndarray, indices: Sequence[int], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The pairs with the least distances, with what `values` has under the name `kind`."""
    order: list[int] = np.argsort(near.distances, kind="stable")[:CLOSEST].tolist()
    return [
        {"index": indices[row], "real": names[int(near.rows[row])], kind: float(values[row])}
        for row in order
    ]


def similarity(distances: np.ndarray) -> np.ndarray:
    """Cosine similarities of vectors of length 1 from their distances."""
    return 1 - np.square(distances) / 2


def identity(
    near: Nearest,
    real: FeatureSet,
    people: np.ndarray,
    indices: Sequence[int],
    names: Sequence[str],
) -> dict[str, Any]:
    """The share of generated images that lie as near to a real person as few real ones do.

    The threshold is the similarity that only FALSE_SHARE of real images reach with the nearest of
    another person. `same_person` is how many real images reach it with one of their own person,
    null where no person is known to have two.
    """
    own = similarity(among_real(real, people))
    if not len(own):
        raise UserError(
            "`identity` needs real images of two persons, and `person` or the number of images "
            "leaves one; give more as `real`, or correct `person`."
        )
    threshold = float(np.quantile(own, 1 - FALSE_SHARE))
    found = similarity(near.distances)
    return {
        "threshold": threshold,
        "false_share": FALSE_SHARE,
        "calibrated_on": len(own),
        "persons": len(np.unique(people)),
        "leaked_of_real": _within(-own, -threshold),
        "same_person": _recognised(real, people, threshold),
        "leaked": _within(-found, -threshold),
        "median_similarity": float(np.median(found)),
        "median_similarity_of_real": float(np.median(own)),
        "closest": _closest(near, "similarity", found, indices, names),
    }


def _recognised(real: FeatureSet, people: np.ndarray, threshold: float) -> dict[str, Any] | None:
    """How many images of the subset lie above the threshold with another one of their person."""
    rows, whose = real.subset.rows, people[real.subset.numbers]
    right = total = 0
    order = np.argsort(whose, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(whose[order])) + 1):
        if len(group) > 1:
            some = np.asarray(rows[group], np.float64)
            squared = squared_distances(some, some)
            np.fill_diagonal(squared, np.inf)
            right += int((1 - squared.min(1) / 2 >= threshold).sum())
            total += len(group)
    return share(right, total) if total else None


def numbers_of_people(
    names: Sequence[str], known: Sequence[str | None], person: str | None
) -> np.ndarray:
    """A number for the person in each real image, int64 [n].

    `known` are the persons that the dataset names; an image without one shows another person than
    all others. `person` is instead a regular expression whose group, or whole match, is the person
    in an image's name. Raises UserError for a pattern that is none, or does not match.
    """
    if person is not None:
        try:
            pattern = re.compile(person)
        except re.error as error:
            raise UserError(
                f"`person` {person!r} is no regular expression ({error}); correct it."
            ) from None
        known = [_person_in(name, pattern) for name in names]
    numbers: dict[str, int] = {}
    return np.array(
        [
            row if who is None else numbers.setdefault(who, len(names) + len(numbers))
            for row, who in enumerate(known)
        ],
        np.int64,
    )


def _person_in(name: str, pattern: re.Pattern[str]) -> str:
    match = pattern.search(name)
    if match is None:
        raise UserError(
            f"`person` {pattern.pattern!r} finds no person in the name {name}; correct the pattern."
        )
    return (match[1] if pattern.groups else match[0]) or ""


class Side:
    """The features of one side's images, generated or real, in one network."""

    def __init__(self, network: Any, units: bool, size: int, seed: int, file: Path | None) -> None:
        self._network, self._units = network, units
        self.features = FeatureSet(size, seed, file)

    def add(self, images: np.ndarray) -> None:
        """Add images float32 [n, 3, H, W]; embeddings are kept with length 1."""
        found = self._network(images)
        self.features.add(unit(found) if self._units else found)
