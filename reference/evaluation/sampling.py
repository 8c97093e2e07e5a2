"""Samples of requests, and reconstructions of images by the VAE, kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from synfer_rt.backends.computation import computation
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.export.training import cache
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.sampling.steps import engines_of, plan

SEED = 7
"""The seed of the evaluation's requests."""


def sample(sampler: Sampler, requests: Sequence[Request], way: Trajectory) -> dict[str, np.ndarray]:
    """One batch: `images` uint8 [n, H, W, 3], whether they are `accepted`, bool [n], and
    `labels` int64 [n], the classes after the vote.
    """
    samples = sampler.sample(list(requests), way, len(requests))
    return {
        "images": np.stack([s.image for s in samples]),
        "accepted": np.array([s.accepted for s in samples]),
        "labels": np.array([sampler.bundle.classes.index(s.label) for s in samples]),
    }


def facts(sampler: Sampler, requests: Sequence[Request], way: Trajectory) -> tuple[object, ...]:
    """Everything that the samples of these requests depend on, for `cache.key`."""
    scales = np.array([request.guidance for request in requests], np.float32)
    weights = sampler.bundle.hash_with(*engines_of(plan(sampler.bundle, way, scales)))
    return weights, computation(sampler.bundle, sampler.backend), *steps(way), list(requests)


def steps(way: Trajectory) -> tuple[object, ...]:
    """All fields of a trajectory, arrays by their digests."""
    values = (getattr(way, field.name) for field in fields(way))
    return tuple(cache.digest(v) if isinstance(v, np.ndarray) else v for v in values)


def kept(
    sampler: Sampler,
    requests: Sequence[Request],
    way: Trajectory,
    work: Path,
    title: str,
    batch: int = 64,
) -> dict[str, np.ndarray]:
    """Like `sample`, for any number of requests; samples that `work` has are not made again."""
    folder = work / f"samples-{cache.key(*facts(sampler, requests, way))}"
    return cache.rows(
        folder,
        len(requests),
        lambda rows: sample(sampler, [requests[i] for i in rows], way),
        batch,
        title,
    )


def reconstructed(sampler: Sampler, images_u8: np.ndarray, work: Path) -> np.ndarray:
    """Images uint8 [n, H, W, 3], encoded and decoded; kept in `work`."""

    def make(rows: np.ndarray) -> dict[str, np.ndarray]:
        images = images_u8[rows].transpose(0, 3, 1, 2).astype(np.float32) / 255
        decoded = sampler.decode(sampler.encode(images)[0])
        pixels = np.rint(decoded.clip(0, 1).transpose(0, 2, 3, 1) * 255).astype(np.uint8)
        return {"images": pixels}

    computed = computation(sampler.bundle, sampler.backend)
    facts = sampler.bundle.bundle_hash, computed, cache.digest(images_u8)
    folder = work / f"reconstructed-{cache.key(*facts)}"
    return cache.rows(folder, len(images_u8), make, 64, "reconstructing")["images"]
