"""Which steps reuse the deep features of a step before (DeepCache, arXiv 2312.00858)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from synfer_rt import ranges
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.errors import UserError


def with_cached_features(trajectory: Trajectory, every: int) -> Trajectory:
    """`trajectory`, of whose guided steps only every `every`-th computes the deep features anew.

    The first of them does, and the others reuse the last features (the paper's uniform schedule,
    section 3.3). A step without guidance runs one branch, so it neither keeps features nor reuses
    them, and does not count. With 1 no step reuses any. Raises UserError for an `every` below 1,
    and above 1 for the steps of a student, whose engine has no features to keep.
    """
    every = ranges.whole("cache_every", every, 1, None)
    if every > 1 and trajectory.denoiser != Trajectory.denoiser:
        raise UserError(
            f"`cache_every` is for the model itself, and {trajectory.denoiser} makes these steps; "
            'write `quality="best"`, or leave out `cache_every`.'
        )
    number = np.cumsum(trajectory.guided) - 1
    return replace(trajectory, reused=trajectory.guided & (number % every != 0))
