"""Which images a training never sees, so that what is measured on them holds for others.

The choice follows from persons, or from the pixels of the images, and from nothing else: whatever
the order of the files, the same images are held out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

SHARE = 0.1
"""The part of each class that is held out."""


def hold_out(classes: np.ndarray, groups: Sequence[str], share: float = SHARE) -> np.ndarray:
    """Which of n images are held out, bool [n], given their classes int [n] and their groups.

    A group, such as a person, is held out whole. Groups are taken in the order of their SHA-256,
    each that has an image of a class of which less than `share` is held out so far.
    """
    count = int(classes.max()) + 1
    wanted = share * np.bincount(classes, minlength=count)
    lacking = np.ceil(wanted - 1e-9).astype(int)  # 0.1 * 30 is a little more than 3
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    held = np.zeros(len(classes), bool)
    for group in in_order(members):
        found = np.bincount(classes[members[group]], minlength=count)
        if ((found > 0) & (lacking > 0)).any():
            held[members[group]] = True
            lacking -= found
    return held


def every_other(groups: Sequence[str]) -> np.ndarray:
    """Bool [n]: true for the images of every other group, in the order of `hold_out`."""
    chosen = {group for i, group in enumerate(in_order(set(groups))) if i % 2}
    return np.array([group in chosen for group in groups], bool)


def in_order(groups: Iterable[str]) -> list[str]:
    """The groups in the order of their SHA-256."""
    return sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())
