"""From requests to labelled images in batches, by stages that can be run one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from synfer_rt import ranges
from synfer_rt.backends import Value, to_numpy
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.engine_specs import FEATURES, STORING
from synfer_rt.data import pixels
from synfer_rt.diffusion.noise import Key
from synfer_rt.diffusion.solvers import HISTORY_SLOTS, Trajectory
from synfer_rt.errors import UserError
from synfer_rt.judging.annotators import Annotators
from synfer_rt.judging.calibration import Calibrated
from synfer_rt.judging.voting import Opinion, Verdict, vote
from synfer_rt.sampling import steps
from synfer_rt.sampling.conditioning import distinct, restored
from synfer_rt.sampling.guidance import Guide, SemanticGuidance, engine_name
from synfer_rt.sampling.observer import Observer
from synfer_rt.sampling.on_device import OnDevice
from synfer_rt.sampling.preparation import (
    Prepared,
    conditioner_inputs,
    prepare,
    start_latents,
    with_fresh_noise,
)
from synfer_rt.sampling.requests import Request, check
from synfer_rt.sampling.samples import Sample


@dataclass(frozen=True)
class Computed:
    """What the engines make of a piece of B images.

    `pixels` are uint8 [B, H, W, 3], `sound` bool [B] (see data/pixels.py), `opinions` those of the
    annotators, if there are any, and `backends` the names of those that made the images. `again`
    has the samples, by row, that were made again.
    """

    piece: Prepared
    pixels: np.ndarray
    sound: np.ndarray
    opinions: Sequence[Opinion]
    backends: Sequence[str]
    again: Mapping[int, Sample]


class Sampler:
    """The stages between a request and a sample, run by the engines that it is given.

    `observer` is told of each stage and step, except of those that make a broken image again. The
    vote of `calibrated` annotators has label sets.
    """

    def __init__(
        self,
        engines: LoadedEngines,
        observer: Observer | None = None,
        calibrated: Calibrated | None = None,
    ) -> None:
        self.engines, self.bundle, self._calibrated = engines, engines.bundle, calibrated
        self._observer = observer or Observer()

    @classmethod
    def of(cls, bundle: Bundle, backend: str = "auto", threads: int | None = None) -> Self:
        """A sampler with engines of its own; see `LoadedEngines` for the arguments and errors."""
        return cls(LoadedEngines(bundle, backend, threads))

    @property
    def backend(self) -> str:
        """The name of the backend that runs the engines."""
        return self.engines.backend

    def condition(self, requests: Sequence[Request]) -> dict[str, Value]:
        """The conditioning of both guidance branches, tensors [B, 2, ...] by name.

        Branch 0 has the negative prompt and zero AUs, branch 1 the prompt and the AUs. Raises
        UserError for a request that the bundle cannot sample (`requests.check`).
        """
        for request in requests:
            check(request, self.bundle)
        return self._conditioning(conditioner_inputs(requests, self.bundle))

    def _conditioning(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Value]:
        engine = self.engines["conditioner"]
        with self._observer.stage("condition"):
            if not self.backend.endswith("-cpu"):
                return engine.run_on_device(inputs)
            packed, places = distinct(inputs)
            return restored(engine.run(packed), places)

    def start(self, requests: Sequence[Request], trajectory: Trajectory) -> np.ndarray:
        """Where the trajectory starts, float32 [B, C, h, w]; see `preparation.start_latents`."""
        return start_latents(requests, self.bundle, trajectory)

    def denoise(
        self,
        latents: Value,
        conditioning: Mapping[str, Value],
        guidance: np.ndarray,
        trajectory: Trajectory,
        guide: Guide | None = None,
        keys: Sequence[Key] = (),
    ) -> Iterator[Value]:
        """Yield the latents [B, C, h, w] after each step; the last are the clean ones.

        `guidance` is float32 [B]; `guide` is the semantic guidance of this batch and trajectory.
        `keys` are the B samples' seeds and indices, by which fresh noise is drawn; only solvers
        that add noise need them.

        Between steps everything stays on the device of the backend; `backends.to_numpy` copies
        latents to host memory.
        """
        guidance = np.asarray(guidance, np.float32)
        state: dict[str, Value] = {
            **conditioning,
            "latents": latents,
            "history": np.zeros((len(guidance), HISTORY_SLOTS, *self.bundle.latent.shape), "f4"),
        }
        for number, step in enumerate(steps.plan(self.bundle, trajectory, guidance)):
            with self._observer.stage("denoise"):
                state["timestep"] = np.asarray(trajectory.timesteps[number])
                state["coefficients"] = trajectory.coefficients[number]
                state["guidance"] = guidance if step.guided else np.ones_like(guidance)
                if guide is not None:
                    state |= guide.before(number, state)
                engine = self.engines[step.engine]
                outputs: Mapping[str, Value] = engine.run_on_device(state)
                if step.engine == STORING:
                    state[FEATURES] = outputs[FEATURES]
                if guide is not None:
                    outputs = guide.after(number, state, outputs)
                latents = outputs["next_latents"]
                state["latents"] = with_fresh_noise(latents, trajectory, number, keys)
                state["history"] = outputs["next_history"]
            self._observer.step(len(guidance) / len(trajectory.timesteps))
            yield state["latents"]

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Latents float32 [B, C, h, w] as images float32 [B, 3, H, W] in [0, 1]."""
        with self._observer.stage("decode"):
            return self.engines.run_in_pieces("decoder", "latents", latents)["images"]

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images float32 [B, 3, H, W] in [0, 1] as the posterior's mean and log-variance.

        Both are float32 [B, C, h, w], in the scale of latents.
        """
        outputs = self.engines.run_in_pieces("encoder", "images", images)
        return outputs["mean"], outputs["logvar"]

    def judge(
        self, images: np.ndarray, wanted: Sequence[str], latents: np.ndarray | None = None
    ) -> list[Verdict]:
        """The vote of the bundle's annotators on images float32 [B, 3, H, W] in [0, 1].

        `wanted` are the B requested labels, `latents` [B, C, h, w] what the images were decoded
        from. A single annotator replaces no label. Raises UserError for a bundle without
        annotators.
        """
        several = len(self.annotators.members) > 1
        with self._observer.stage("label"):
            return self.annotators.judge(images, wanted, latents, rectify=several)

    @cached_property
    def annotators(self) -> Annotators:
        """The bundle's annotators. Raises UserError for a bundle without any."""
        return Annotators(self.engines)

    def sample(
        self,
        requests: Sequence[Request],
        trajectory: Trajectory,
        batch: int,
        semantic: SemanticGuidance | None = None,
        starts: np.ndarray | None = None,
    ) -> list[Sample]:
        """The samples of the requests, in their order, `batch` at a time.

        `semantic` guides each sample towards its label (see guidance.py). `starts`, float32
        [len(requests), C, h, w], are latents to start from instead of layouts with noise.

        A batch goes through the engines in equal pieces (`at_once`); the last is padded. An image
        that is flat or not finite is made again, alone, on the CPU in float32, unless it was made
        there. If that does not help, its sample is `broken` and not accepted. Raises UserError for
        a batch below 1, a request that the bundle cannot sample (`requests.check`), starts of
        another shape, and arguments of another type.
        """
        batch = ranges.whole("batch", batch, 1, None)
        _check_types(requests, trajectory, semantic)
        starts = None if starts is None else np.asarray(starts)
        for request in requests:
            check(request, self.bundle)
        shape = (len(requests), *self.bundle.latent.shape)
        if starts is not None and starts.shape != shape:
            raise UserError(
                f"`starts` must be latents of shape {list(shape)}, got {list(starts.shape)}."
            )
        size = self.at_once(batch, semantic)
        samples: list[Sample] = []
        for first in range(0, len(requests), size):
            part = slice(first, first + size)
            begin = None if starts is None else starts[part]
            piece = prepare(requests[part], self.bundle, trajectory, size, begin)
            samples += self.make(piece, trajectory, semantic)
        return samples

    def at_once(self, batch: int, semantic: SemanticGuidance | None = None) -> int:
        """How many images of a batch `sample` takes through the engines at once.

        It is the size of the fewest equal pieces of a batch (`LoadedEngines.piece_size`).
        """
        names = ("conditioner", *self.bundle.denoisers, *_guides(semantic))
        return self.engines.piece_size(batch, *names)

    def make(
        self, piece: Prepared, trajectory: Trajectory, semantic: SemanticGuidance | None = None
    ) -> list[Sample]:
        """The samples of the first `piece.count` requests; see `sample`."""
        return self.label(self.compute(piece, trajectory, semantic))

    def compute(
        self, piece: Prepared, trajectory: Trajectory, semantic: SemanticGuidance | None = None
    ) -> Computed:
        """What the engines make of a piece; `label` makes samples of it, without engines."""
        if on_device := self._on_device(piece, trajectory, semantic):
            return self._finished(on_device, piece, trajectory, semantic)
        latents = self._clean(piece, trajectory, semantic)
        images = self.decode(latents)
        backends = [self.backend] * len(piece)
        sound = pixels.sound(images[: piece.count])
        self._observer.decoded(sound)
        if self._fallback is not None:
            for i in np.flatnonzero(~sound).tolist():
                again = self._fallback._clean(piece.alone(i), trajectory, semantic)
                latents[i], images[i] = again[0], self._fallback.decode(again)[0]
                backends[i] = self._fallback.backend
        return self._judged(piece, images, latents, backends)

    def _finished(
        self,
        on_device: OnDevice,
        piece: Prepared,
        trajectory: Trajectory,
        semantic: SemanticGuidance | None,
    ) -> Computed:
        """What bound engines make; the fallback makes and judges broken images."""
        made = on_device.finish(piece, trajectory, semantic)
        sound = made.sound[: piece.count]
        self._observer.decoded(sound)
        again: dict[int, Sample] = {}
        if self._fallback is not None:
            for i in np.flatnonzero(~sound).tolist():
                (again[i],) = self._fallback.make(piece.alone(i), trajectory, semantic)
        backends = [self.backend] * len(piece)
        return Computed(piece, made.pixels, made.sound, made.opinions, backends, again)

    def denoised(
        self,
        requests: Sequence[Request],
        latents: np.ndarray,
        trajectory: Trajectory,
        semantic: SemanticGuidance | None = None,
        size: int | None = None,
    ) -> np.ndarray:
        """The clean latents to which `latents` [B, C, h, w] lead, each under its own request.

        They go through the engines `size` at a time, by default in the fewest equal pieces; the
        last is padded.
        """
        count = len(requests)
        size = self.at_once(count, semantic) if size is None else size
        ends: list[np.ndarray] = []
        for first in range(0, count, size):
            part = requests[first : first + size]
            for request in part:
                check(request, self.bundle)
            begin = latents[first : first + size]
            piece = prepare(part, self.bundle, trajectory, size, begin)
            ends.append(self._clean(piece, trajectory, semantic)[: piece.count])
        return np.concatenate(ends)

    def _clean(
        self, piece: Prepared, trajectory: Trajectory, semantic: SemanticGuidance | None
    ) -> np.ndarray:
        """The clean latents [B, C, h, w] of a piece."""
        if on_device := self._on_device(piece, trajectory, semantic):
            return on_device.clean(piece, trajectory, semantic)
        conditioning = self._conditioning(piece.inputs)
        guide = None
        if semantic is not None:
            engine = self.engines[engine_name(semantic.form)]
            guide = Guide(semantic, engine, piece.targets, trajectory)
        current: Value = piece.latents
        keys = piece.keys
        for step in self.denoise(current, conditioning, piece.guidance, trajectory, guide, keys):
            current = step
        return np.array(to_numpy(current))  # a copy, for the engine may use its memory again

    def _on_device(
        self, piece: Prepared, trajectory: Trajectory, semantic: SemanticGuidance | None
    ) -> OnDevice | None:
        """Bound engines for the piece, if all that it needs can be bound.

        Fresh noise comes from the host, after each step.
        """
        if trajectory.is_stochastic:
            return None
        planned = steps.plan(self.bundle, trajectory, piece.guidance)
        return OnDevice.of(self.engines, steps.engines_of(planned), semantic, self._observer)

    @cached_property
    def _fallback(self) -> Sampler | None:
        """The sampler that makes broken images again; None if this one would."""
        if self.engines.fallback is None:
            return None
        return Sampler(self.engines.fallback, calibrated=self._calibrated)

    def _judged(
        self, piece: Prepared, images: np.ndarray, latents: np.ndarray, backends: Sequence[str]
    ) -> Computed:
        """Images that these backends have made, with what the annotators say of them."""
        sound = pixels.sound(images)
        images = pixels.finite(images)
        latents = np.where(sound[:, None, None, None], latents, 0)
        opinions: Sequence[Opinion] = ()
        if self.bundle.annotators:
            with self._observer.stage("label"):
                opinions = self.annotators.opinions(images, latents)
        return Computed(piece, pixels.in_8_bits(images), sound, opinions, backends, {})

    def label(self, computed: Computed) -> list[Sample]:
        """The samples of a piece, with the vote on their images."""
        requests = computed.piece.requests
        verdicts: Sequence[Verdict | None] = [None] * len(requests)
        if computed.opinions:
            wanted = [request.label for request in requests]
            several = len(computed.opinions) > 1
            scheme = self.bundle.label_scheme
            verdicts = vote(computed.opinions, scheme, wanted, several, self._calibrated)
        sound = computed.sound.tolist()
        return [
            computed.again.get(i)
            or _sample(requests[i], computed.pixels[i], verdicts[i], sound[i], computed.backends[i])
            for i in range(computed.piece.count)
        ]


def _sample(
    request: Request, image: np.ndarray, verdict: Verdict | None, sound: bool, backend: str
) -> Sample:
    """A sample with the vote on its image; without annotators there is none."""
    if verdict is None:
        return Sample(request, image, request.label, False, {}, "", False, not sound, backend)
    return Sample(
        request,
        image,
        verdict.label,
        verdict.rectified,
        verdict.probabilities,
        verdict.best,
        bool(sound and verdict.agrees),
        not sound,
        backend,
        verdict.label_set,
    )


def _check_types(requests: object, trajectory: object, semantic: object) -> None:
    """Raise UserError for arguments of `sample` that are of another type."""
    if not isinstance(requests, Sequence):
        raise UserError(
            "`requests` must be a list of requests, such as make_requests(bundle)[:8], got "
            f"{requests!r}."
        )
    if not isinstance(trajectory, Trajectory):
        raise UserError(
            f"`trajectory` must be a trajectory, such as bundle.trajectory(), got {trajectory!r}."
        )
    if semantic is not None and not isinstance(semantic, SemanticGuidance):
        raise UserError(
            "`semantic` must be a semantic guidance, as semantic_guidance returns it, got "
            f"{semantic!r}."
        )


def _guides(semantic: SemanticGuidance | None) -> tuple[str, ...]:
    """The name of the guide's engine, if there is guidance."""
    return () if semantic is None else (engine_name(semantic.form),)
