"""From requests to the arrays that a piece of a batch takes through the engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from synfer_rt.backends import Value, to_numpy
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion import noise
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling.guidance import one_hot
from synfer_rt.sampling.requests import Request
from synfer_rt.vocabulary import facs


@dataclass(frozen=True)
class Prepared:
    """B requests as arrays; all but the first `count` are padding, which fills up the piece.

    `inputs` are those of the conditioner by name: `tokens` int64 [B, 2, L] and, of a model with
    action units, `aus` float32 [B, 2, A] and `au_scale` float32 [B]. `latents` float32 [B, C, h, w]
    are where the trajectory starts, `guidance` float32 [B] the scales of classifier-free guidance,
    and `targets` float32 [B, classes] the requested labels as one-hot rows.
    """

    requests: tuple[Request, ...]
    count: int
    inputs: Mapping[str, np.ndarray]
    latents: np.ndarray
    guidance: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        """B: the images that go through the engines at once."""
        return len(self.requests)

    @property
    def keys(self) -> list[noise.Key]:
        """What random numbers are keyed by: seed and index of each request."""
        return [(request.seed, request.index) for request in self.requests]

    def alone(self, row: int) -> Prepared:
        """The request of this row as a piece of its own."""
        inputs = {name: array[[row]] for name, array in self.inputs.items()}
        return Prepared(
            (self.requests[row],),
            1,
            inputs,
            self.latents[[row]],
            self.guidance[[row]],
            self.targets[[row]],
        )

    def showing(self, aus: Sequence[Mapping[str, float]], bundle: Bundle) -> Prepared:
        """The same with other intensities of action units, those of the `count` requests."""
        requests = [
            replace(request, aus=shown)
            for request, shown in zip(self.requests[: self.count], aus, strict=True)
        ]
        given = facs.au_vectors(aus, bundle.au_names)
        both = padded(np.stack([np.zeros_like(given), given], 1), len(self))
        filling = [requests[-1]] * (len(self) - self.count)
        return replace(self, requests=(*requests, *filling), inputs={**self.inputs, "aus": both})

    def starting_at(self, latents: np.ndarray) -> Prepared:
        """The same from other latents, [count, C, h, w]."""
        return replace(self, latents=padded(latents, len(self)).astype(np.float32))


def prepare(
    requests: Sequence[Request],
    bundle: Bundle,
    trajectory: Trajectory,
    size: int | None = None,
    latents: np.ndarray | None = None,
) -> Prepared:
    """One piece of `size` images, by default as many as the requests, which `check` has passed.

    The last request fills the piece up. `latents` [len(requests), C, h, w] are where to start, by
    default `start_latents`. Raises UserError as that does.
    """
    count = len(requests)
    size = count if size is None else size
    if latents is None:
        latents = start_latents(requests, bundle, trajectory)
    inputs = conditioner_inputs(requests, bundle)
    return Prepared(
        (*requests, *[requests[-1]] * (size - count)),
        count,
        {name: padded(array, size) for name, array in inputs.items()},
        padded(latents, size).astype(np.float32, copy=False),
        padded(np.array([request.guidance for request in requests], np.float32), size),
        padded(one_hot([request.label for request in requests], bundle.classes), size),
    )


def padded(array: np.ndarray, size: int) -> np.ndarray:
    """The rows of an array [B, ...], the last of them repeated up to `size`."""
    missing = size - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, 0)]) if missing else array


def conditioner_inputs(requests: Sequence[Request], bundle: Bundle) -> dict[str, np.ndarray]:
    """What the conditioner reads, as `Prepared.inputs`."""
    texts = [text for r in requests for text in (r.negative_prompt, r.prompt)]
    inputs = {"tokens": bundle.tokenize(texts).reshape(len(requests), 2, -1)}
    names = bundle.au_names
    if names:
        given = facs.au_vectors([request.aus for request in requests], names)
        aus = np.stack([np.zeros_like(given), given], 1)
        scale = np.array([r.au_scale for r in requests], np.float32)
        inputs |= {"aus": aus, "au_scale": scale}
    return inputs


def start_latents(
    requests: Sequence[Request], bundle: Bundle, trajectory: Trajectory
) -> np.ndarray:
    """The latents at the start of the trajectory, float32 [B, C, h, w]: layouts with noise.

    Raises UserError for a layout outside the bank, and for a request without a layout if the
    trajectory starts from one.
    """
    shape = bundle.latent.shape
    latents = noise.normals([(r.seed, r.index) for r in requests], shape)
    latents *= np.float32(trajectory.noise)
    if trajectory.signal == 0:
        return latents
    rows = [_row_of_bank(request, len(bundle.layouts)) for request in requests]
    for noised, row in zip(latents, rows, strict=True):
        noised += np.float32(trajectory.signal) * bundle.layouts.latents[row]
    return latents


def with_fresh_noise(
    latents: Value, trajectory: Trajectory, step: int, keys: Sequence[noise.Key]
) -> Value:
    """The latents [B, C, h, w] after `step` with the fresh noise of the trajectory, if any.

    The noise belongs to a sample's key, its seed and index, and to the step. Raises UserError
    unless there is a key for each of the latents.
    """
    deviation = trajectory.noises[step]
    if deviation == 0:
        return latents
    there = to_numpy(latents)
    if len(keys) != len(there):
        raise UserError(
            f"The solver adds fresh noise to {len(there)} samples, but `keys` has {len(keys)}; "
            "give seed and index of each, or use a solver without fresh noise."
        )
    return there + deviation * noise.normals(keys, there.shape[1:], "step", step)


def _row_of_bank(request: Request, layouts: int) -> int:
    if request.layout is None:
        raise UserError(
            f"Sample {request.index} has no `layout`, from which a trajectory of strength below 1 "
            "starts; use strength 1."
        )
    if not 0 <= request.layout < layouts:
        raise UserError(
            f"`layout` must be from 0 to {layouts - 1}, the rows of the layout bank, got "
            f"{request.layout} in sample {request.index}."
        )
    return request.layout
