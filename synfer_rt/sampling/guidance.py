"""Semantic guidance: the gradient of a classifier moves samples towards their label.

It acts in the later part of the denoising (SynFER, arXiv 2410.09865). The gradients are engines of
the bundle, one for each of FORMS.
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
    "text": "moves the text embedding, through UNet, decoder and image classifier (as the paper)",
    "text-latent": "moves the text embedding, through the UNet and a classifier of latents",
    "latent": "moves the predicted clean latents, through a classifier of latents",
}
"""What a form moves, and what the gradient passes through; `engine_name` is its engine."""

START = 15 / 35
"""The part of the steps before guidance starts; 15 of 35 as in a reproduction of SynFER."""


@dataclass(frozen=True)
class SemanticGuidance:
    """Which steps are guided, and how far; `semantic_guidance` makes and checks it.

    `form` is one of FORMS. `strength` is the length of one move: of every text token in the units
    of the embedding, or, with form "latent", the root mean square over the latents. The steps
    before the fraction `start` are not guided; from there on every `every`-th is.
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
    """The guidance of a run with these options of `sample`; None if `strength` is None or 0.

    `strength` is `semantic_guidance`, and the others are `semantic_form`, by default "latent",
    `semantic_start`, by default START, and `semantic_every`, by default 1. Raises UserError for an
    unknown form (naming the nearest), a strength that is negative or not finite, a start outside
    [0, 1), an `every` below 1, a bundle without the engine of the form, and for any of the others
    without a strength.
    """
    if strength is None and any(value is not None for value in (form, start, every)):
        raise UserError(
            "`semantic_form`, `semantic_start` and `semantic_every` need `semantic_guidance`; add "
            "`semantic_guidance=0.1`."
        )
    if strength is None or (ranges.is_number(strength) and strength == 0):
        return None
    form = _known_form("latent" if form is None else form)
    start = START if start is None else start
    if not ranges.is_real(strength, 0, float(np.finfo(np.float32).max)):
        raise UserError(
            "`semantic_guidance` must be a finite number of at least 0, got "
            f"{ranges.shown(strength)}."
        )
    if not ranges.is_real(start, 0, 1) or start == 1:
        raise UserError(
            f"`semantic_start` must be at least 0 and below 1, got {ranges.shown(start)}."
        )
    every = ranges.whole("semantic_every", 1 if every is None else every, 1, None)
    _check_engine(bundle, form)
    return SemanticGuidance(form, float(strength), float(start), every)


def _known_form(form: object) -> str:
    if not isinstance(form, str) or form not in FORMS:
        raise UserError(
            f"Unknown `semantic_form` {form!r}; the nearest is {nearest(str(form), FORMS)} "
            f"(known are {', '.join(FORMS)})."
        )
    return form


def _check_engine(bundle: Bundle, form: str) -> None:
    """Raise UserError for a bundle without the engine of a form."""
    if engine_name(form) in bundle.engines:
        return
    there = [f for f in FORMS if engine_name(f) in bundle.engines]
    source = "image_classifier/" if form == "text" else "latent_classifier/"
    remedy = f"build it from a checkpoint that has a {source}"
    if there:
        remedy = f'write `semantic_form="{there[-1]}"`, or {remedy}'
    raise UserError(f"{bundle.name} has no engine {engine_name(form)}; {remedy}.")


def engine_name(form: str) -> str:
    """The name of the engine that computes the gradient of a form."""
    return f"guide.{form}"


def one_hot(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """The B labels as one-hot rows float32 [B, classes], the `target` of a Guide."""
    rows = np.zeros((len(labels), len(classes)), np.float32)
    rows[np.arange(len(labels)), [classes.index(label) for label in labels]] = 1
    return rows


class Guide:
    """Semantic guidance of one batch along a trajectory.

    `engine` is the engine of the form; `target` float32 [B, classes] are the labels, one-hot or
    soft. Call `before` and `after` around the denoiser at every step.
    """

    def __init__(
        self,
        semantic: SemanticGuidance,
        engine: Engine,
        target: np.ndarray,
        trajectory: Trajectory,
    ) -> None:
        self._semantic = semantic
        self._trajectory = trajectory
        self._engine = engine
        self._given = {
            "target": np.asarray(target, np.float32),
            "strength": np.full(len(target), semantic.strength, np.float32),
        }

    def before(self, step: int, state: Mapping[str, Value]) -> dict[str, Value]:
        """What changes in the denoiser's inputs `state` (which include the timestep) at this step.

        The moves of the text embedding add up: each guided step starts from the one before.
        """
        if self._semantic.form == "latent" or not self._guides(step):
            return {}
        outputs = self._engine.run_on_device({**state, **self._at(step)})
        return {"text": outputs["guided_text"]}

    def after(
        self, step: int, state: Mapping[str, Value], outputs: Mapping[str, Value]
    ) -> Mapping[str, Value]:
        """The denoiser's `outputs`, corrected if the form is "latent" and the step is guided."""
        if self._semantic.form != "latent" or not self._guides(step):
            return outputs
        corrected = self._engine.run_on_device({**state, **outputs, **self._at(step)})
        return {
            "next_latents": corrected["guided_latents"],
            "next_history": corrected["guided_history"],
        }

    def _guides(self, step: int) -> bool:
        return self._semantic.guides(step, len(self._trajectory.timesteps))

    def _at(self, step: int) -> dict[str, Value]:
        # Row 1 of every solver's matrix is the clean image, a * latents + b * prediction.
        return {**self._given, "clean": self._trajectory.coefficients[step, 1, :2]}
