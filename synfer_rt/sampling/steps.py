"""Which engine computes each step of a piece, and whether guidance acts there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from synfer_rt.bundle import Bundle
from synfer_rt.bundle.engine_specs import (
    CONDITIONAL,
    DENOISER,
    ONE_BRANCH,
    REUSING,
    STORING,
)
from synfer_rt.diffusion.solvers import Trajectory


@dataclass(frozen=True)
class Step:
    """How a step runs: by the `engine` of this name, with classifier-free guidance if `guided`.

    Where guidance does not act, an engine of both branches runs with guidance 1.
    """

    engine: str
    guided: bool

    @property
    def reads_both_branches(self) -> bool:
        """Whether the step reads branch 0 of the conditioning, the negative prompt's, as well."""
        return self.engine not in ONE_BRANCH


def plan(bundle: Bundle, trajectory: Trajectory, guidance: np.ndarray) -> tuple[Step, ...]:
    """How each of the trajectory's N steps runs for a piece.

    `guidance` [B] are the scales of the piece's images. A distilled model has no branches. Others
    run the conditional branch alone where the trajectory is not guided, and everywhere if each
    scale is 1; a bundle without an engine for that runs its denoiser. Where the trajectory reuses
    features, every guided step stores or reuses them, whatever the scales: an image does not depend
    on those beside it.
    """
    if trajectory.denoiser in ONE_BRANCH:
        return (Step(trajectory.denoiser, guided=False),) * len(trajectory.timesteps)
    alone = without_guidance(bundle)
    caches = bool(trajectory.reused.any())
    whole = STORING if caches else DENOISER
    scaled = caches or bool(np.any(guidance != 1))
    return tuple(
        Step(REUSING if reused else whole, guided=True)
        if scaled and guided
        else Step(alone, guided=False)
        for guided, reused in zip(trajectory.guided, trajectory.reused, strict=True)
    )


def without_guidance(bundle: Bundle) -> str:
    """The engine of a step of the bundle's undistilled model in which guidance does not act."""
    return CONDITIONAL if CONDITIONAL in bundle.engines else DENOISER


def engines_of(steps: Iterable[Step]) -> tuple[str, ...]:
    """The engines that these steps need, each once."""
    return tuple(dict.fromkeys(step.engine for step in steps))
