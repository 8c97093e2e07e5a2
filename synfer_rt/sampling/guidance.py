"""Semantic guidance at run time: which steps a classifier's gradient steers, and how.

A classifier pulls the image towards the wanted label while it is denoised (SynFER, arXiv
2410.09865). The gradients are engines of the bundle; see FORMS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synfer_rt import ranges
from synfer_rt.backends import Engine, Value
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.errors import UserError, nearest

FORMS: dict[str, str] = {
    "text": "moves the text embedding, through UNet, decoder and an image classifier (the paper's)",
    "text-latent": "moves the text embedding, through the UNet and a classifier on latents",
    "latent": "moves the predicted clean latents, through a classifier on latents",
}
"""The engine of a form is called `guide.<form>`."""

START = 15 / 35
"""The part of the steps that stays unguided, as SynFER is reproduced: 15 of 35."""


@dataclass(frozen=True)
class SemanticGuidance:
    """What to do at which step; `semantic_guidance` makes and checks it.

    `strength` is the length of one move: of every text token, in the embedding's units, or (form
    "latent") the root mean square over the latents. Steps before the fraction `start` are left
    alone, then every `every`-th is guided.
    """

    form: str
    strength: float
    start: float = START
    every: int = 1

    def guides(self, step: int, steps: int) -> bool:
        """Whether `step` of 0 to `steps` - 1 is guided."""
        after = step - math.ceil(self.start * steps - 1e-9)
        return after >= 0 and after % self.every == 0


def semantic_guidance(
    bundle: Bundle,
    strength: float | None,
    form: str | None = None,
    start: float | None = None,
    every: int | None = None,
) -> SemanticGuidance | None:
    """The guidance that these options ask for; None when `strength` is None or 0.

    The form is by default "latent", and every step from START on is guided. Raises UserError for an
    unknown form (naming the nearest), a strength that is negative or not finite, a start outside
    [0, 1), an `every` below 1, a bundle without the form's engine, and any of them without a
    strength.
    """
    if strength is None and (form, start, every) != (None, None, None):
        raise UserError("How to guide is said, but not how far; add --semantic-guidance 0.1.")
    if strength is None or (ranges.is_number(strength) and strength == 0):
        return None
    form = "latent" if form is None else form
    start = START if start is None else start
    every = 1 if every is None else every
    if not isinstance(form, str) or form not in FORMS:
        near = nearest(str(form), FORMS)
        raise UserError(
            f"Unknown form of semantic guidance {form!r}; the nearest is {near} "
            f"(known are {', '.join(FORMS)})."
        )
    if not ranges.is_real(strength, 0, float(np.finfo(np.float32).max)):
        raise UserError(
            f"The strength of semantic guidance is {strength}; write a number of 0 or more."
        )
    if not ranges.is_real(start, 0, 1) or start == 1:
        raise UserError(
            f"Semantic guidance cannot start after {ranges.shown(start)} of the steps; write a "
            "fraction from 0 to below 1."
        )
    if not ranges.is_whole(every, 1):
        raise UserError(f"Every {every} steps is never; write 1 or more.")
    if engine_name(form) not in bundle.engines:
        there = [f for f in FORMS if engine_name(f) in bundle.engines]
        source = "image_classifier/" if form == "text" else "latent_classifier/"
        remedy = f"build it from a checkpoint that has a {source}"
        if there:
            remedy = f"write --semantic-form {there[-1]}, or {remedy}"
        raise UserError(f"{bundle.name} has no engine {engine_name(form)}; {remedy}.")
    return SemanticGuidance(form, float(strength), float(start), int(every))


def engine_name(form: str) -> str:
    """The engine that computes a form of FORMS."""
    return f"guide.{form}"


def targets(wanted: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """One-hot rows float32 [B, classes] for labels by name."""
    rows = np.zeros((len(wanted), len(classes)), np.float32)
    rows[np.arange(len(wanted)), [classes.index(label) for label in wanted]] = 1
    return rows


class Guide:
    """Semantic guidance of one batch on its way along a trajectory.

    `engine` is the form's (`engine_name`), `target` float32 [B, classes] (see `targets`; a soft
    label will do). Call `before` and `after` around the denoiser at every step.
    """

    def __init__(
        self,
        semantic: SemanticGuidance,
        engine: Engine,
        target: np.ndarray,
        way: Trajectory,
    ) -> None:
        self._semantic = semantic
        self._way = way
        self._engine = engine
        self._given = {
            "target": np.asarray(target, np.float32),
            "strength": np.full(len(target), semantic.strength, np.float32),
        }

    def before(self, step: int, state: Mapping[str, Value]) -> dict[str, Value]:
        """What changes in the denoiser's inputs `state` (timestep included) at this step.

        The text stays where it was moved: each guided step moves it on.
        """
        if self._semantic.form == "latent" or not self._guides(step):
            return {}
        outputs = self._engine.run_on_device({**state, **self._at(step)})
        return {"text": outputs["guided_text"]}

    def after(
        self, step: int, state: Mapping[str, Value], outputs: Mapping[str, Value]
    ) -> Mapping[str, Value]:
        """The denoiser's `outputs`, corrected if this step is guided in the latents."""
        if self._semantic.form != "latent" or not self._guides(step):
            return outputs
        corrected = self._engine.run_on_device({**state, **outputs, **self._at(step)})
        return {
            "next_latents": corrected["guided_latents"],
            "next_history": corrected["guided_history"],
        }

    def _guides(self, step: int) -> bool:
        return self._semantic.guides(step, len(self._way.timesteps))

    def _at(self, step: int) -> dict[str, Value]:
        # Row 1 of every solver's matrix is the clean image, a * latents + b * prediction.
        return {**self._given, "clean": self._way.coefficients[step, 1, :2]}
