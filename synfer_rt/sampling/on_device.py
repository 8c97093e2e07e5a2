"""A piece's way through bound engines: on the device from its prepared arrays to its pixels.

Everything lies in buffers at fixed addresses, so each call can be replayed as a CUDA graph. A piece
is uploaded once, with the whole trajectory as tables; a step is one call of a denoiser; and
pixels in 8 bits and a few numbers are downloaded. Latents and history alternate between three
buffers, since an engine never writes what it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Self

import numpy as np

from synfer_rt.backends.engine import ONE_AT_A_TIME, BoundEngine, Buffer
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import FERANNO, Head
from synfer_rt.bundle.cuda import NEXT_STEP, STEP
from synfer_rt.bundle.engine_specs import FEATURES, LATENT_AXES, STORING
from synfer_rt.diffusion.solvers import HISTORY_SLOTS, Trajectory
from synfer_rt.judging.voting import Opinion
from synfer_rt.sampling.guidance import SemanticGuidance, engine_name
from synfer_rt.sampling.observer import Observer
from synfer_rt.sampling.preparation import Prepared, padded
from synfer_rt.sampling.steps import Step, plan
from synfer_rt.vocabulary.label_schemes import scheme

_NO_GUIDANCE = "no guidance"
"""The buffer of scales of 1, for steps in which guidance does not act."""
_LEAST_STEPS = 64
"""The rows of the shortest tables. A table has 64, 128, 256, ... rows, of which a trajectory uses
the first, so that nearly all trajectories share CUDA graphs."""


@dataclass(frozen=True)
class Finished:
    """The images of a piece: `pixels` uint8 [B, H, W, 3] and `sound` bool [B], see data/pixels.py.

    `opinions` are those of the bundle's annotators. On an image that is not sound they say nothing:
    all classes are equally likely.
    """

    pixels: np.ndarray
    sound: np.ndarray
    opinions: list[Opinion]


class OnDevice:
    """Bound engines that take one piece after the other; `of` says whether they can.

    `observer` is told of each stage and step.
    """

    def __init__(
        self, engines: LoadedEngines, bound: Mapping[str, BoundEngine], observer: Observer
    ) -> None:
        self._engines, self._bundle = engines, engines.bundle
        self._bound, self._observer = bound, observer

    @classmethod
    def of(
        cls,
        engines: LoadedEngines,
        denoisers: Sequence[str],
        semantic: SemanticGuidance | None,
        observer: Observer,
    ) -> Self | None:
        """The engines that these denoisers and this guidance need, if all can be bound."""
        guides = () if semantic is None else (engine_name(semantic.form),)
        names = ("conditioner", *denoisers, *guides, "decoder", *engines.bundle.annotators)
        bound = engines.bound(*names)
        return None if bound is None else cls(engines, bound, observer)

    def clean(
        self, piece: Prepared, trajectory: Trajectory, semantic: SemanticGuidance | None
    ) -> np.ndarray:
        """The clean latents float32 [B, C, h, w] of a piece."""
        with ONE_AT_A_TIME:
            return self._denoise(piece, trajectory, semantic).numpy()[: len(piece)]

    def finish(
        self, piece: Prepared, trajectory: Trajectory, semantic: SemanticGuidance | None
    ) -> Finished:
        """The images of a piece, and what the annotators say of them."""
        annotators = self._bundle.annotators
        found: list[dict[str, np.ndarray]] = []
        with ONE_AT_A_TIME:
            latents = self._denoise(piece, trajectory, semantic)
            batch = latents.shape[0]
            size = self._engines.piece_size(batch, "decoder", *annotators)
            for first in range(0, len(piece), size):
                # The last part reaches back into the one before, so that all have one size.
                start = min(first, batch - size)
                part = self._images(latents.rows(start, size))
                found.append({name: array[first - start :] for name, array in part.items()})
        whole = {
            name: np.concatenate([part[name] for part in found])[: len(piece)] for name in found[0]
        }
        return Finished(
            whole["pixels"],
            whole["sound"],
            [
                _opinion(head, whole[head.annotator], whole["sound"])
                for _, head in self._bundle.heads
            ],
        )

    def _denoise(
        self, piece: Prepared, trajectory: Trajectory, semantic: SemanticGuidance | None
    ) -> Buffer:
        """The buffer of the clean latents."""
        steps = plan(self._bundle, trajectory, piece.guidance)
        count = len(steps)
        state = self._upload(piece, trajectory, semantic)
        for number, step in enumerate(steps):
            with self._observer.stage("denoise"):
                guided = semantic is not None and semantic.guides(number, count)
                form = semantic.form if semantic is not None and guided else None
                last = number == count - 1
                if form is None:
                    state |= self._step(step, state, wait=last)
                elif form == "latent":
                    state |= self._corrected(engine_name(form), step, state, wait=last)
                else:
                    state["text"] = self._moved_text(engine_name(form), state)
                    state |= self._step(step, state, wait=last)
            self._observer.step(len(piece) / count)
        return state["latents"]

    def _upload(
        self, piece: Prepared, trajectory: Trajectory, semantic: SemanticGuidance | None
    ) -> dict[str, Buffer]:
        """The inputs of the first step by name, of a batch that is filled up if need be."""
        guides = () if semantic is None else (engine_name(semantic.form),)
        denoisers = self._bundle.denoisers
        size = self._engines.bound_batch(len(piece), "conditioner", *denoisers, *guides)
        arrays: dict[str, np.ndarray] = {
            "latents": piece.latents,
            "guidance": piece.guidance,
            _NO_GUIDANCE: np.ones_like(piece.guidance),
            **piece.inputs,
        }
        if semantic is not None:
            strength = np.full(len(piece), semantic.strength, np.float32)
            arrays |= {"target": piece.targets, "strength": strength}
        state = {name: self._filled(name, padded(a, size)) for name, a in arrays.items()}
        # Row 1 of every solver's matrix is the clean image, a * latents + b * prediction.
        tables = {
            "timesteps": trajectory.timesteps,
            "coefficients": trajectory.coefficients,
            "cleans": trajectory.coefficients[:, 1, :2],
        }
        rows = max(_LEAST_STEPS, 1 << (len(trajectory.timesteps) - 1).bit_length())
        state |= {name: self._filled(name, padded(t, rows)) for name, t in tables.items()}
        # Nothing writes these two, so they stay zeros.
        shape = (size, HISTORY_SLOTS, *self._bundle.latent.shape)
        state["history"] = self._engines.buffer("history", shape, "float32")
        state[STEP.name] = self._engines.buffer(STEP.name, (), STEP.dtype)
        if STORING in self._bound:
            state[FEATURES] = self._features(size)
        with self._observer.stage("condition"):
            conditioning = {
                tensor.name: self._engines.buffer(
                    tensor.name, (size, *(int(n) for n in tensor.shape[1:])), tensor.dtype
                )
                for tensor in self._bundle.engines["conditioner"].outputs
            }
            self._bound["conditioner"].enqueue(state, conditioning)
        return state | conditioning

    def _step(self, step: Step, state: Mapping[str, Buffer], *, wait: bool) -> dict[str, Buffer]:
        """Enqueue a step; the state that changes."""
        if not step.guided:
            state = {**state, "guidance": state[_NO_GUIDANCE]}
        outputs = {
            "next_latents": self._other("latents", state["latents"]),
            "next_history": self._other("history", state["history"]),
            "prediction": self._other("prediction", state["latents"]),
            NEXT_STEP.name: self._other(STEP.name, state[STEP.name]),
        }
        if step.engine == STORING:
            outputs[FEATURES] = state[FEATURES]
        self._bound[step.engine].enqueue(state, outputs, wait=wait)
        return {
            "latents": outputs["next_latents"],
            "history": outputs["next_history"],
            STEP.name: outputs[NEXT_STEP.name],
            "prediction": outputs["prediction"],
        }

    def _features(self, size: int) -> Buffer:
        """The buffer of the features, which one engine writes and another reads."""
        (tensor,) = (t for t in self._bundle.engines[STORING].outputs if t.name == FEATURES)
        lengths = dict(zip(LATENT_AXES, self._bundle.latent.shape[1:], strict=True))
        shape = (size, *(int(lengths.get(str(n), n)) for n in tensor.shape[1:]))
        return self._engines.buffer(FEATURES, shape, tensor.dtype)

    def _corrected(
        self, guide: str, step: Step, state: Mapping[str, Buffer], *, wait: bool
    ) -> dict[str, Buffer]:
        """Enqueue a step and its correction; the state that changes."""
        made = self._step(step, state, wait=False)
        latents = self._other("latents", state["latents"], made["latents"])
        history = self._other("history", state["history"], made["history"])
        given = {
            **state,
            "prediction": made["prediction"],
            "next_latents": made["latents"],
            "next_history": made["history"],
        }
        outputs = {"guided_latents": latents, "guided_history": history}
        self._bound[guide].enqueue(given, outputs, wait=wait)
        return made | {"latents": latents, "history": history}

    def _moved_text(self, guide: str, state: Mapping[str, Buffer]) -> Buffer:
        """Enqueue the move of the text embedding; where it comes to lie."""
        moved = self._other("text", state["text"])
        self._bound[guide].enqueue(state, {"guided_text": moved})
        return moved

    def _images(self, latents: Buffer) -> dict[str, np.ndarray]:
        """`pixels` and `sound` of clean latents, and each head's probabilities by its annotator."""
        annotators = self._bundle.annotators
        size = latents.shape[0]
        height, width = self._bundle.image_size
        made = {
            name: self._engines.buffer(name, shape, dtype)
            for name, shape, dtype in (
                ("images", (size, 3, height, width), "float32"),
                ("pixels", (size, height, width, 3), "uint8"),
                ("sound", (size,), "bool"),
            )
        }
        with self._observer.stage("decode"):
            self._bound["decoder"].enqueue({"latents": latents}, made, wait=True)
        said: dict[str, Buffer] = {}
        with self._observer.stage("label") if annotators else nullcontext():
            for name in annotators:
                outputs: dict[str, Buffer] = {}
                for head in self._bundle.engines[name].heads:
                    shape = (size, len(scheme(head.label_scheme)))
                    buffer = self._engines.buffer(head.annotator, shape, "float32")
                    said[head.annotator] = outputs[head.output] = buffer
                given = {"latents": latents} if name == FERANNO else {"images": made["images"]}
                self._bound[name].enqueue(given, outputs, wait=name == annotators[-1])
        del made["images"]
        return {name: buffer.numpy() for name, buffer in (made | said).items()}

    def _filled(self, name: str, array: np.ndarray) -> Buffer:
        """The buffer `name` with the values of an array."""
        buffer = self._engines.buffer(name, array.shape, array.dtype.name)
        buffer.fill(array)
        return buffer

    def _other(self, name: str, like: Buffer, *used: Buffer) -> Buffer:
        """A buffer of the shape and type of `like`, but neither `like` nor among `used`."""
        others = (
            self._engines.buffer(f"{name} {letter}", like.shape, like.dtype.name)
            for letter in "abc"
        )
        return next(other for other in others if other is not like and other not in used)


def _opinion(head: Head, probabilities: np.ndarray, sound: np.ndarray) -> Opinion:
    """A head's opinion, with all classes equally likely on images that are not sound."""
    equal = np.float32(1 / probabilities.shape[1])
    shares = np.where(sound[:, None], probabilities, equal)
    return Opinion(head.annotator, head.label_scheme, shares, head.mapping)
