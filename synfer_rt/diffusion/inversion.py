"""Trajectories backwards: from clean latents to the start of a solver's steps that lead to them.

The denoiser's engine runs them, for they are matrices too (`solvers.py`). Backwards the latents at
the noisier end of a step are unknown, but the network is to look at them. So they are guessed, and
what the network predicts there corrects the guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from synfer_rt import ranges
from synfer_rt.diffusion.guidance_interval import levels
from synfer_rt.diffusion.solvers import HISTORY_SLOTS, Trajectory
from synfer_rt.errors import UserError

ROUNDS = 3
"""Fixed-point iterations of each step."""
_LEAST_SIGNAL = 1e-3
"""The least factor of what is looked for in a step that is solved for it. The factor is about 0.05
at the last timestep of most models, and 0 at zero SNR."""


def fixed_point(trajectory: Trajectory, prediction_type: str, rounds: int = ROUNDS) -> Trajectory:
    """The reverse of `trajectory` by DDIM on its timesteps, solved by fixed-point iteration.

    A step of DDIM is `lower = A * upper + B * prediction(upper, t)`. `upper` is found by iterating
    `upper <- (lower - B * prediction(upper, t)) / A` from `upper = lower`, `rounds` times
    (arXiv 2309.04907, algorithm 1); one round is plain DDIM inversion. Each round is one step of
    the result, which keeps `lower` in the first slot of the history. Raises UserError for fewer
    than one round, and for a step from which nothing of the image is left, such as a single step
    from pure noise.
    """
    rounds = ranges.whole("rounds", rounds, 1, None)
    latents, prediction, lower, *_ = np.eye(HISTORY_SLOTS + 2)
    nothing = np.zeros(HISTORY_SLOTS + 2)
    # Row 1 of every solver's matrix is the clean image, a * latents + b * prediction.
    clean = trajectory.coefficients[:, 1, :2].astype(np.float64)
    way = [*levels(trajectory, prediction_type), (1.0, 0.0)]
    matrices: list[np.ndarray] = []
    timesteps: list[float] = []
    for i in reversed(range(len(clean))):
        (signal, noise), (next_signal, next_noise) = way[i : i + 2]
        ratio = next_noise / noise
        share = next_signal - signal * ratio
        a, b = ratio + share * clean[i, 0], share * clean[i, 1]
        _check_signal(a)
        for round_ in range(rounds):
            below = latents if round_ == 0 else lower
            upper = (below - b * prediction) / a
            matrices.append(np.stack([upper, below, *[nothing] * (HISTORY_SLOTS - 1)]))
            timesteps.append(float(trajectory.timesteps[i]))
    return _backwards(timesteps, matrices)


def _check_signal(factor: float) -> None:
    if abs(factor) < _LEAST_SIGNAL:
        raise UserError(
            "A step from pure noise cannot be inverted to a photo; raise `steps`, or lower "
            "`layout_strength`."
        )


def _backwards(timesteps: Sequence[float], matrices: Sequence[np.ndarray]) -> Trajectory:
    return Trajectory(
        np.array(timesteps, np.float32), np.stack(matrices).astype(np.float32), 1.0, 0.0
    )


@dataclass(frozen=True)
class _Step:
    """A solver's step, to be gone from its end back to its start.

    `signal` and `noise` are those of the latents at its start. The latents at its end are
    `ratio * start + share * clean`. `clean` is the mean of the clean images that are predicted at
    the start, with the `weight`, and at the end.
    """

    signal: float
    noise: float
    ratio: float
    share: float
    weight: float

    def start(self, end: np.ndarray, velocity: np.ndarray, clean_at_end: np.ndarray) -> np.ndarray:
        """The latents at the start, where the network is to predict this `velocity`."""
        mean = self.share * self.weight, self.share * (1 - self.weight)
        # There the clean image is signal * start - noise * velocity.
        factor = self.ratio + mean[0] * self.signal
        _check_signal(factor)
        return (end + mean[0] * self.noise * velocity - mean[1] * clean_at_end) / factor


def predictor_corrector(trajectory: Trajectory, prediction_type: str) -> Trajectory:
    """The reverse of `trajectory` in as many evaluations of the network as it has steps.

    Backwards a step of first order is implicit. So is one of second order: the clean image of the
    step before it, which is not known yet, is extrapolated from those at the start and the end of
    the step, and DPM-Solver++ becomes the trapezoidal rule on the clean image (arXiv 2311.18387
    finds that image by finer steps). The start is first guessed as if the velocity
    `v = (signal * latents - clean) / noise` (arXiv 2202.00512) stayed what it was at the end, and
    then corrected with the one that the network predicts at the guess: one iteration of the
    predictor and corrector of multistep methods (PEC; Hairer, Norsett and Wanner, Solving Ordinary
    Differential Equations I, III.1). Of all that a network may predict, the velocity changes least
    with the latents, for it is what clean latents of unit variance leave open.

    The first step has no velocity to begin with: its guess are the clean latents, in which the
    network finds too little noise, so it is corrected twice. The last is a guess alone, since
    latents that are nearly noise would correct it little. The history keeps the latents at the end
    of a step, and the clean image there. Raises UserError for a step from which nothing of the
    image is left.
    """
    latents, prediction, end, clean_at_end, _ = np.eye(HISTORY_SLOTS + 2)
    nothing = np.zeros(HISTORY_SLOTS + 2)
    way = _steps(trajectory, prediction_type)
    order = [*reversed(range(1, len(way)))]
    order = [*order[:1], *order] or [0]
    matrices: list[np.ndarray] = []
    for number, i in enumerate(order):
        step = way[i]
        a, b = trajectory.coefficients[i, 1, :2].astype(np.float64)
        velocity = (step.signal * latents - (a * latents + b * prediction)) / step.noise
        # The clean latents, where everything begins, are their own clean image.
        there = (end, clean_at_end) if number else (latents, latents)
        start = step.start(there[0], velocity, there[1])
        clean = step.signal * start - step.noise * velocity
        if i == 0:
            rows = [start, nothing, nothing]
        elif number == 0:
            rows = [start, *there]
        else:
            rows = [way[i - 1].start(start, velocity, clean), start, clean]
        matrices.append(np.stack([*rows, nothing]))
    return _backwards(trajectory.timesteps[order].tolist(), matrices)


def _steps(trajectory: Trajectory, prediction_type: str) -> list[_Step]:
    """The steps of a trajectory, those of higher order by the trapezoidal rule."""
    way = [*levels(trajectory, prediction_type), (1.0, 0.0)]
    multistep: list[bool] = np.any(trajectory.coefficients[:, 0, 2:] != 0, axis=1).tolist()
    steps: list[_Step] = []
    for i, ((signal, noise), (next_signal, next_noise)) in enumerate(pairwise(way)):
        ratio = next_noise / noise
        weight = 0.5 if multistep[i] and next_noise else 1.0
        steps.append(_Step(signal, noise, ratio, next_signal - signal * ratio, weight))
    return steps


PREDICTOR_CORRECTOR, FIXED_POINT = "predictor-corrector", "fixed-point"
METHODS: Mapping[str, Callable[[Trajectory, str], Trajectory]] = {
    PREDICTOR_CORRECTOR: predictor_corrector,
    FIXED_POINT: fixed_point,
}
"""How photos are inverted, by name: the default, and the way of runs that name none."""
