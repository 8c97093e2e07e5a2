"""Accuracy of a classifier, from the counts of what was asked for and what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from synfer_rt.evaluation.intervals import wilson


def accuracy(counts: np.ndarray, asked: Sequence[str], read: Sequence[str]) -> dict[str, Any]:
    """The accuracy of all images, of each class, and the mean over classes.

    `counts` int64 [asked, read] are images by the class that was asked for and the one that is
    read; classes are matched by their names. `macro` is the mean over the classes that were asked
    for. Intervals are Wilson's.
    """
    right = np.array(
        [counts[i, read.index(name)] if name in read else 0 for i, name in enumerate(asked)]
    )
    totals = counts.sum(1)
    per_class = {
        name: share(int(yes), int(of))
        for name, yes, of in zip(asked, right, totals, strict=True)
        if of
    }
    shares = [each["share"] for each in per_class.values()]
    return {
        **share(int(right.sum()), int(totals.sum())),
        "macro": float(np.mean(shares)) if shares else None,
        "per_class": per_class,
    }


def share(yes: int, of: int) -> dict[str, Any]:
    """`yes` cases `of` all as a share with its Wilson interval; null of none."""
    if not of:
        return {"share": None, "interval": None, "images": 0}
    return {"share": yes / of, "interval": list(wilson(yes / of, of)), "images": of}
