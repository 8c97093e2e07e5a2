"""Sets of samples made in some way, kept on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reference import cache
from reference.evaluation.sampling import facts
from synfer_rt.guidance import START, SemanticGuidance, engine_name, semantic_guidance
from synfer_rt.plan import Plan, make_plan
from synfer_rt.sampler import Sample, Sampler
from synfer_rt.solvers import Trajectory


@dataclass(frozen=True)
class Recipe:
    """How the images of a set are made; what it does not say is the bundle's default.

    `guidance` is the classifier-free one's scale; `form` is that of semantic guidance, None for
    none, and the rest of it follows.
    """

    name: str
    labels: str = "all"
    aus: bool = True
    layouts: bool = True
    guidance: float | None = None
    form: str | None = None
    strength: float = 0.0
    start: float = START
    every: int = 1

    def available(self, sampler: Sampler) -> bool:
        """Whether the bundle has the engine for it."""
        return self.form is None or engine_name(self.form) in sampler.bundle.engines

    def plan(self, sampler: Sampler, seed: int) -> Plan:
        """The requests."""
        layout = "bank" if self.layouts else "none"
        plan = make_plan(
            sampler.bundle,
            labels_text=self.labels,
            layout=layout,
            guidance=self.guidance,
            seed=seed,
        )
        return plan if self.aus else replace(plan, aus={})

    def way(self, sampler: Sampler) -> Trajectory:
        """The denoising steps."""
        strength = sampler.bundle.defaults.layout_strength if self.layouts else 1.0
        return sampler.bundle.trajectory(strength=strength)

    def semantic(self, sampler: Sampler) -> SemanticGuidance | None:
        """The guidance."""
        if self.form is None:
            return None
        return semantic_guidance(sampler.bundle, self.strength, self.form, self.start, self.every)

    def sample(self, sampler: Sampler, indices: np.ndarray, seed: int) -> list[Sample]:
        """The samples of these indices."""
        plan = self.plan(sampler, seed)
        requests = [plan.request(int(i)) for i in indices]
        return sampler.sample(requests, self.way(sampler), len(requests), self.semantic(sampler))


def sample_set(
    sampler: Sampler, recipe: Recipe, count: int, seed: int, work: Path
) -> dict[str, np.ndarray]:
    """Samples 0 to `count` - 1 of a recipe, labels taking turns.

    `images` uint8 [n, H, W, 3]; `requested` and `label` (after the vote), indices int64 [n] into
    the bundle's classes; `probabilities` float32 [n, classes]; `accepted` bool [n].
    """
    bundle = sampler.bundle

    def make(indices: np.ndarray) -> dict[str, np.ndarray]:
        samples = recipe.sample(sampler, indices, seed)
        return {
            "images": np.stack([s.image for s in samples]),
            "requested": np.array([bundle.classes.index(s.request.label) for s in samples]),
            "label": np.array([bundle.classes.index(s.label) for s in samples]),
            "probabilities": np.array(
                [[s.probabilities[c] for c in bundle.classes] for s in samples], np.float32
            ),
            "accepted": np.array([s.accepted for s in samples]),
        }

    plan = recipe.plan(sampler, seed)
    requests = [plan.request(i) for i in range(count)]
    decided = facts(sampler, requests, recipe.way(sampler)), recipe.semantic(sampler)
    folder = work / f"samples-{cache.key(*decided)}"
    return cache.rows(folder, count, make, 16, f"sampling {recipe.name}")
