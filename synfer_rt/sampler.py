"""The batched loop from requests to labelled images, in stages that can be run one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from synfer_rt import facs, labels, noise
from synfer_rt.backends import Engine, Value, choose, open_engine, to_numpy
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.solvers import HISTORY_SLOTS, Trajectory

_PIXELS_AT_ONCE = 1 << 20
"""How many output pixels the decoder and the classifiers take in one call."""
_FLAT = 1e-3


@dataclass(frozen=True)
class Request:
    """One image to make.

    `aus` are intensities in [0, 1] by AU name; `guidance` is the classifier-free guidance scale
    (1 leaves the conditional prediction as it is); `au_scale` multiplies the AUs' influence;
    `layout` is a row of the bundle's layout bank, or None to start from noise alone.
    """

    index: int
    seed: int
    label: str
    prompt: str
    negative_prompt: str
    aus: Mapping[str, float]
    guidance: float
    au_scale: float
    layout: int | None


@dataclass(frozen=True)
class Sample:
    """A finished image and what the bundle's classifier says of it.

    `image` is uint8 [H, W, 3]. `probabilities` has the names of the bundle's label scheme, `best`
    is the likeliest, and `accepted` says whether that is the requested label. In a bundle without
    a classifier nobody has judged: no probabilities, an empty `best`, not accepted.
    """

    request: Request
    image: np.ndarray
    probabilities: dict[str, float]
    best: str
    accepted: bool


class Sampler:
    """A bundle's engines, loaded, and the stages between a request and a sample.

    `backend` is the name of the backend that runs, `why` a sentence on its choice; `retried`
    counts the samples that came out broken and were made again. Engines load on first use.
    """

    def __init__(self, bundle: Bundle, backend: str = "auto", threads: int | None = None) -> None:
        self.bundle = bundle
        self.backend, self.why = choose(backend)
        self.retried = 0
        self._threads = threads
        self._engines: dict[str, Engine] = {}

    def engine(self, name: str) -> Engine:
        """The engine `name`, loaded once. Raises UserError when the bundle lacks it."""
        if name not in self._engines:
            self._engines[name] = open_engine(self.bundle, name, self.backend, self._threads)
        return self._engines[name]

    def condition(self, requests: Sequence[Request]) -> dict[str, Value]:
        """The conditioning of both guidance branches, tensors [B, 2, ...] by name.

        Branch 0 has the negative prompt and zero AUs, branch 1 the prompt and the AUs.
        """
        texts = [text for r in requests for text in (r.negative_prompt, r.prompt)]
        inputs = {"tokens": self.bundle.tokenize(texts).reshape(len(requests), 2, -1)}
        names = self.bundle.au_names
        if names:
            aus = np.zeros((len(requests), 2, len(names)), np.float32)
            for row, request in zip(aus, requests, strict=True):
                facs.check_intensities(request.aus)
                row[1] = facs.au_vector(request.aus, names)
            scale = np.array([r.au_scale for r in requests], np.float32)
            inputs |= {"aus": aus, "au_scale": scale}
        return self.engine("conditioner").run_on_device(inputs)

    def start(self, requests: Sequence[Request], trajectory: Trajectory) -> np.ndarray:
        """The latents to begin with, float32 [B, C, h, w]: layout and noise, mixed.

        Raises UserError for a layout that the bank does not hold, and for a trajectory that
        starts from an image where a request has none.
        """
        shape = self.bundle.latent.shape
        latents = np.stack([noise.normal(r.seed, r.index, shape) for r in requests])
        latents *= np.float32(trajectory.noise)
        if trajectory.signal == 0:
            return latents
        layouts = self.bundle.layouts
        for row, request in zip(latents, requests, strict=True):
            if request.layout is None:
                raise UserError(
                    f"Sample {request.index} has no layout to start from at this strength; "
                    "sample it at strength 1."
                )
            if not 0 <= request.layout < len(layouts):
                raise UserError(
                    f"Sample {request.index} asks for layout {request.layout}; the bank holds "
                    f"0 to {len(layouts) - 1}."
                )
            row += np.float32(trajectory.signal) * layouts.latents[request.layout]
        return latents

    def denoise(
        self,
        latents: Value,
        conditioning: Mapping[str, Value],
        guidance: np.ndarray,
        trajectory: Trajectory,
    ) -> Iterator[Value]:
        """Yield the latents [B, C, h, w] after each step; the last are the clean ones.

        `guidance` is float32 [B]. Between steps everything stays on the backend's device;
        `backends.to_numpy` brings latents home.
        """
        state: dict[str, Value] = {
            **conditioning,
            "guidance": np.asarray(guidance, np.float32),
            "latents": latents,
            "history": np.zeros((len(guidance), HISTORY_SLOTS, *self.bundle.latent.shape), "f4"),
        }
        denoiser = self.engine("denoiser")
        for timestep, matrix in zip(trajectory.timesteps, trajectory.coefficients, strict=True):
            state["timestep"], state["coefficients"] = np.asarray(timestep), matrix
            outputs = denoiser.run_on_device(state)
            state["latents"], state["history"] = outputs["next_latents"], outputs["next_history"]
            yield state["latents"]

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Latents float32 [B, C, h, w] as images float32 [B, 3, H, W] in [0, 1]."""
        return self._in_pieces("decoder", "latents", latents)["images"]

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images float32 [B, 3, H, W] in [0, 1] as the posterior's mean and log-variance.

        Both are float32 [B, C, h, w], in the scale of latents.
        """
        outputs = self._in_pieces("encoder", "images", images)
        return outputs["mean"], outputs["logvar"]

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities float32 [B, classes] in the bundle's label scheme.

        `images` are float32 [B, 3, H, W] in [0, 1]; the bundle's first classifier judges them.
        Raises UserError for a bundle without one.
        """
        if not self.bundle.classifiers:
            raise UserError(f"{self.bundle.name} has no classifier; build it with one.")
        name = self.bundle.classifiers[0]
        scheme = self.bundle.engines[name].label_scheme or self.bundle.label_scheme
        probabilities = self._in_pieces(name, "images", images)["probabilities"]
        return labels.convert(probabilities, scheme, self.bundle.label_scheme)

    def sample(
        self, requests: Sequence[Request], trajectory: Trajectory, batch: int
    ) -> list[Sample]:
        """Make every request's image, `batch` at a time, in the order given.

        The last batch is padded to `batch`, so that a backend compiles for one size only. An
        image that is flat or not finite is made again, alone, on the CPU in float32. Raises
        UserError, naming the index, when that is no better.
        """
        if batch < 1:
            raise UserError(f"A batch of {batch} holds no image; write 1 or more.")
        samples: list[Sample] = []
        for first in range(0, len(requests), batch):
            part = list(requests[first : first + batch])
            padded = part + [part[-1]] * (batch - len(part))
            images = self._images(padded, trajectory)[: len(part)]
            for i in np.flatnonzero(~_sound(images)):
                images[i] = self._made_again(part[i], trajectory)
            samples += self._labelled(part, images)
        return samples

    def _images(self, requests: Sequence[Request], trajectory: Trajectory) -> np.ndarray:
        guidance = np.array([r.guidance for r in requests], np.float32)
        conditioning = self.condition(requests)
        latents: Value = self.start(requests, trajectory)
        for step in self.denoise(latents, conditioning, guidance, trajectory):
            latents = step
        return self.decode(to_numpy(latents))

    def _made_again(self, request: Request, trajectory: Trajectory) -> np.ndarray:
        self.retried += 1
        image = self._fallback._images([request], trajectory)
        if not _sound(image)[0]:
            raise UserError(
                f"Sample {request.index} is flat or not finite even in float32; lower its "
                f"guidance ({request.guidance:g}) and AU scale ({request.au_scale:g}), or take "
                "another solver or more steps."
            )
        return image[0]

    @cached_property
    def _fallback(self) -> Sampler:
        return Sampler(self.bundle, "onnxruntime-cpu", self._threads)

    def _labelled(self, requests: Sequence[Request], images: np.ndarray) -> list[Sample]:
        names = self.bundle.classes if self.bundle.classifiers else ()
        rows = self.classify(images) if names else np.zeros((len(requests), 0), np.float32)
        pixels = np.rint(images.clip(0, 1).transpose(0, 2, 3, 1) * 255).astype(np.uint8)
        samples = []
        for request, image, row in zip(requests, pixels, rows.tolist(), strict=True):
            best = names[int(np.argmax(row))] if names else ""
            probabilities = dict(zip(names, row, strict=True))
            samples.append(Sample(request, image, probabilities, best, best == request.label))
        return samples

    def _in_pieces(self, name: str, key: str, array: np.ndarray) -> dict[str, np.ndarray]:
        """Run an engine over the batch in equal pieces, small enough for its activations."""
        engine = self.engine(name)
        count = len(array)
        at_once = max(1, _PIXELS_AT_ONCE // math.prod(self.bundle.image_size))
        pieces = max(1, math.ceil(count / at_once))
        size = math.ceil(count / pieces)
        padded = np.concatenate([array, np.repeat(array[-1:], size * pieces - count, 0)])
        outputs = [engine.run({key: padded[i * size :][:size]}) for i in range(pieces)]
        return {k: np.concatenate([o[k] for o in outputs])[:count] for k in outputs[0]}


def _sound(images: np.ndarray) -> np.ndarray:
    """Which of the images [B, 3, H, W] are finite and not flat, bool [B]."""
    flat = images.reshape(len(images), -1)
    return np.isfinite(flat).all(1) & (np.ptp(flat, axis=1) >= _FLAT)
