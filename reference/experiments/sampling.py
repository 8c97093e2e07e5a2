"""Sets of samples, each made by one recipe and kept on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from reference.evaluation.sampling import facts
from synfer_rt.diffusion.inversion import fixed_point
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.export.training import cache
from synfer_rt.sampling.guidance import START, SemanticGuidance, engine_name, semantic_guidance
from synfer_rt.sampling.inversion import neutral_request
from synfer_rt.sampling.requests import Requests, make_requests
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.sampling.samples import Sample


@dataclass(frozen=True)
class Recipe:
    """How the images of a set are made; all other settings are the bundle's defaults.

    `layouts` of the bank are "noised" (signal * layout + noise, as in SDEdit, arXiv 2108.01073;
    the default), "inverted" (by DDIM, as in SynFER), or "none": then samples start from noise
    alone. `guidance` is the scale of classifier-free guidance. `form` is the form of semantic
    guidance, None for none; `strength`, `start` and `every` are its settings.
    """

    name: str
    labels: Literal["all"] | tuple[str, ...] = "all"
    aus: bool = True
    layouts: str = "noised"
    guidance: float | None = None
    form: str | None = None
    strength: float = 0.0
    start: float = START
    every: int = 1

    def available(self, sampler: Sampler) -> bool:
        """Whether the bundle has the engine for it."""
        return self.form is None or engine_name(self.form) in sampler.bundle.engines

    def requests(self, sampler: Sampler, seed: int) -> Requests:
        """The requests of the samples, by index."""
        layout = "none" if self.layouts == "none" else "bank"
        requests = make_requests(
            sampler.bundle,
            labels=self.labels,
            layout=layout,
            guidance=self.guidance,
            seed=seed,
        )
        return requests if self.aus else replace(requests, aus={})

    def way(self, sampler: Sampler) -> Trajectory:
        """The denoising steps."""
        defaults = sampler.bundle.defaults
        strength = 1.0 if self.layouts == "none" else defaults.layout_strength
        return sampler.bundle.trajectory(strength=strength)

    def semantic(self, sampler: Sampler) -> SemanticGuidance | None:
        """The guidance."""
        if self.form is None:
            return None
        return semantic_guidance(sampler.bundle, self.strength, self.form, self.start, self.every)

    def sample(self, sampler: Sampler, indices: np.ndarray, seed: int, work: Path) -> list[Sample]:
        """The samples of these indices; `work` keeps the layouts that were inverted for them."""
        every, way = self.requests(sampler, seed), self.way(sampler)
        requests = [every[int(i)] for i in indices]
        starts = None
        if self.layouts == "inverted":
            layouts = np.array([request.layout for request in requests])
            starts = inverted_layouts(sampler, layouts, way, work)
        return sampler.sample(requests, way, len(requests), self.semantic(sampler), starts)


def inverted_layouts(
    sampler: Sampler, numbers: np.ndarray, way: Trajectory, work: Path
) -> np.ndarray:
    """The starts of `way` that lead to layouts int64 [n] of the bank, float32 [n, C, h, w].

    As `inversion.invert` does for photos by fixed-point iteration. Each layout is inverted once,
    and kept in `work`.
    """
    back = fixed_point(way, sampler.bundle.prediction_type)
    neutral = neutral_request(sampler.bundle)
    folder = work / f"inverted-{cache.key(*facts(sampler, [neutral], back))}"
    folder.mkdir(parents=True, exist_ok=True)
    files = {int(number): folder / f"{number}.npy" for number in numbers}
    missing = [number for number, file in files.items() if not file.exists()]
    if missing:
        layouts = sampler.bundle.layouts.latents[missing].astype(np.float32)
        starts = sampler.denoised([neutral] * len(missing), layouts, back)
        for number, start in zip(missing, starts, strict=True):
            part = folder / f"{number}.part.npy"
            np.save(part, start)
            part.replace(files[number])
    return np.stack([np.load(files[int(number)]) for number in numbers])


def sample_set(
    sampler: Sampler, recipe: Recipe, count: int, seed: int, work: Path, first: int = 0
) -> dict[str, np.ndarray]:
    """Samples `first` to `first + count - 1` of a recipe, labels taking turns.

    `images` uint8 [n, H, W, 3]; `requested` and `label` (after the vote), indices int64 [n] into
    the bundle's classes; `probabilities` float32 [n, classes]; `accepted` bool [n].
    """
    bundle = sampler.bundle

    def make(rows: np.ndarray) -> dict[str, np.ndarray]:
        samples = recipe.sample(sampler, first + rows, seed, work)
        return {
            "images": np.stack([s.image for s in samples]),
            "requested": np.array([bundle.classes.index(s.request.label) for s in samples]),
            "label": np.array([bundle.classes.index(s.label) for s in samples]),
            "probabilities": np.array(
                [[s.probabilities[c] for c in bundle.classes] for s in samples], np.float32
            ),
            "accepted": np.array([s.accepted for s in samples]),
        }

    requests = recipe.requests(sampler, seed)[first : first + count]
    decided = (
        facts(sampler, requests, recipe.way(sampler)),
        recipe.semantic(sampler),
        recipe.layouts,
    )
    folder = work / f"samples-{cache.key(*decided)}"
    return cache.rows(folder, count, make, 16, f"sampling {recipe.name}")
