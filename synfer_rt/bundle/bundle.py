"""A bundle: a directory of engines, the tokenizer and the start faces, opened and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from synfer_rt import ranges
from synfer_rt.bundle.cuda import CudaSpec
from synfer_rt.bundle.engine_specs import FERANNO, EngineSpec, Head, denoises
from synfer_rt.bundle.face_template import ARCFACE, FaceTemplate, read_template
from synfer_rt.bundle.files import file_entry
from synfer_rt.bundle.identity import DIFFERING, former_identity, identity
from synfer_rt.bundle.layouts import Layouts, read_layouts
from synfer_rt.bundle.plans import PlanSpec
from synfer_rt.bundle.qualities import BEST, QUALITIES, Distilled, settled
from synfer_rt.bundle.sizes import Size, Sizes, format_size
from synfer_rt.bundle.stamps import Stamp, stamp
from synfer_rt.bundle.tokenizing import PromptTokenizer
from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.diffusion.solvers import Trajectory, trajectory
from synfer_rt.diffusion.timesteps import decreasing
from synfer_rt.errors import UserError
from synfer_rt.vocabulary import label_schemes


@dataclass(frozen=True)
class Latent:
    """Shape of one image's latents, [channels, height, width], and the VAE's scaling factor."""

    channels: int
    height: int
    width: int
    scaling_factor: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class Defaults:
    """The sampling settings that the model's makers recommend.

    `quality` is one of the bundle's qualities; the other settings are those of the quality "best".
    """

    solver: str
    steps: int
    guidance: float
    au_scale: float
    layout: str
    layout_strength: float
    negative_prompt: str
    quality: str = BEST


@dataclass(frozen=True)
class Bundle:
    """A checked bundle; `open_bundle` makes it.

    `bundle_hash` is a SHA-256 of everything that a sample of the denoiser depends on (identity.py);
    `hash_with` is that of samples in which other engines have a part. `image_size` is (H, W);
    `sizes` are the other sizes that the engines take, None where theirs is fixed. `au_names` are
    the units of the AU vector in order, empty for a model without AUs. `distilled` is the student
    of the quality "fast", None if the bundle has none. `plans` are the compiled engines by target
    and engine, usually none; `cuda` are the CUDA engines by engine. `manifest` is bundle.json as
    read, and `stamps` are the file system's stamps of the files at that time.
    """

    path: Path
    bundle_hash: str
    name: str
    version: str
    licence: str
    description: str = field(repr=False)
    image_size: tuple[int, int]
    sizes: Sizes | None
    latent: Latent
    prediction_type: str
    schedule: Schedule = field(repr=False)
    au_names: tuple[str, ...] = field(repr=False)
    label_scheme: str
    max_length: int
    defaults: Defaults
    distilled: Distilled | None
    engines: Mapping[str, EngineSpec] = field(repr=False)
    plans: Mapping[str, Mapping[str, PlanSpec]] = field(repr=False)
    cuda: Mapping[str, CudaSpec] = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False, compare=False)
    stamps: dict[str, Stamp | None] = field(repr=False, compare=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The label scheme's class names, in order."""
        return label_schemes.scheme(self.label_scheme)

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The names of the classifier engines, in the manifest's order."""
        return tuple(name for name in self.engines if name.startswith("classifier."))

    @property
    def annotators(self) -> tuple[str, ...]:
        """The engines that vote on a label: the classifiers, then FERAnno."""
        return self.classifiers + tuple(name for name in self.engines if name == FERANNO)

    @property
    def heads(self) -> tuple[tuple[str, Head], ...]:
        """The votes of the annotators, each with the engine that gives it."""
        return tuple((name, head) for name in self.annotators for head in self.engines[name].heads)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What the classifiers read beside classes: valence, arousal, both or neither."""
        read = {name for engine in self.classifiers for name in self.engines[engine].dimensions}
        return tuple(name for name in label_schemes.DIMENSIONS if name in read)

    @property
    def denoisers(self) -> tuple[str, ...]:
        """The engines that denoise, of which sampling/steps.py chooses one for each step."""
        return tuple(filter(denoises, self.engines))

    @property
    def annotators_know(self) -> str | None:
        """The kind of images that all annotators were trained on; None if the bundle names none."""
        return self.manifest.get("annotators_know") or None

    @property
    def face_template(self) -> FaceTemplate:
        """Where the model expects the points of a face; ARCFACE if the bundle does not say."""
        if (points := self.manifest.get("face_template")) is None:
            return ARCFACE
        return read_template(points, self.default_size)

    @property
    def guidance_embedding(self) -> bool:
        """Whether the denoiser embeds the scale of guidance, and so has no unconditional branch."""
        return bool(self.manifest.get("guidance_embedding"))

    @property
    def qualities(self) -> tuple[str, ...]:
        """The names of the qualities in which images can be made."""
        return QUALITIES if self.distilled is not None else (BEST,)

    def defaults_of(self, quality: str) -> Defaults:
        """The default settings of one of the qualities."""
        student = None if quality == BEST else self.distilled
        if student is None:
            return self.defaults
        own = {"solver": student.solver, "steps": student.steps, "guidance": student.guidance}
        return replace(self.defaults, **own)

    def hash_with(self, *denoisers: str) -> str:
        """The hash by which records name the bundle whose engines `denoisers` made the image.

        It is `bundle_hash` unless one of them predicts otherwise than the model itself.
        """
        used = DIFFERING.intersection(denoisers)
        return identity(self.manifest, used) if used else self.bundle_hash

    @property
    def former_hash(self) -> str:
        """The hash that releases up to 0.11 wrote into runs and records."""
        return former_identity(self.manifest)

    @property
    def default_size(self) -> tuple[int, int]:
        """(H, W) that the model was built for; `image_size` differs from it after `resized`."""
        height, width = self.manifest["image_size"]
        return height, width

    def trajectory(
        self,
        solver: str | None = None,
        steps: int | None = None,
        strength: float | None = None,
        timesteps: Sequence[int] | None = None,
        eta: float | None = None,
        *,
        quality: str = BEST,
    ) -> Trajectory:
        """The solver's steps for this model; None means the default of the quality.

        `strength` in (0, 1] is the part of the noise schedule that is run, by default that of
        layouts where they are the default start, else 1. `timesteps` are given instead of `steps`.
        At the quality "fast" the student makes the steps, whatever the guidance of the requests.
        Raises UserError as `solvers.trajectory`, and for a quality that the bundle lacks or that
        does not go with the other arguments.
        """
        timesteps = None if timesteps is None else decreasing(timesteps)
        if strength is None:
            defaults = self.defaults
            strength = defaults.layout_strength if defaults.layout == "bank" else 1.0
        given = {"solver": solver, "steps": steps, "timesteps": timesteps, "eta": eta}
        settled(self.distilled, quality, quality, given, strength, self.name)
        defaults = self.defaults_of(quality)
        student = None if quality == BEST else self.distilled
        if student is not None:
            timesteps = student.timesteps_at(strength)
        way = trajectory(
            defaults.solver if solver is None else solver,
            self.schedule,
            defaults.steps if steps is None and timesteps is None else steps,
            strength,
            self.prediction_type,
            timesteps,
            eta,
        )
        return way if student is None else replace(way, denoiser=student.denoiser)

    @property
    def layout_count(self) -> int:
        """The number of layouts in the bank; 0 without one."""
        return int((self.manifest["layouts"] or {"count": 0})["count"])

    @cached_property
    def layouts(self) -> Layouts:
        """The layout bank, loaded on first use.

        Raises UserError when there is none, when it is for another image size, and as
        `read_layouts`.
        """
        section = self.manifest["layouts"]
        if section is None:
            raise UserError(
                f'{self.name} has no layout bank; start from noise with `layout="none"`.'
            )
        if self.image_size != self.default_size:
            raise UserError(
                f"The layout bank of {self.name} is for images of {format_size(self.default_size)},"
                f' not {format_size(self.image_size)}; start from noise with `layout="none"`.'
            )
        return read_layouts(self.path, section["file"], (section["count"], *self.latent.shape))

    @cached_property
    def _tokenizer(self) -> PromptTokenizer:
        return PromptTokenizer(self.path / self.manifest["tokenizer"]["file"], self.max_length)

    def tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Token ids int64 [len(texts), max_length]. Raises UserError for a damaged tokenizer."""
        return self._tokenizer.ids(texts)

    def unread(self, text: str) -> tuple[str, tuple[str, ...]]:
        """What the model does not read of a text: its truncated end, and unknown words."""
        return self._tokenizer.unread(text)

    def resized(self, size: Size) -> Bundle:
        """This bundle for images of `size`, (H, W) in pixels: the same engines, from noise alone.

        The layout bank holds latents of the default size. Raises UserError for a size that the
        engines do not take, and for a value that is not a pair of whole numbers.
        """
        size = _checked(size)
        if size == self.image_size:
            return self
        if self.sizes is None:
            raise UserError(
                f"{self.name} makes images of {format_size(self.image_size)} only; leave out "
                "`size`, or build the bundle with `synfer-rt build-engines --sizes`."
            )
        if not self.sizes.allow(size):
            raise UserError(
                f"{self.name} cannot make images of {format_size(size)}; write a height and a "
                f"width of {self.sizes}."
            )
        factor = self.image_size[0] // self.latent.height
        height, width = (n // factor for n in size)
        return replace(
            self,
            image_size=size,
            latent=replace(self.latent, height=height, width=width),
            defaults=replace(self.defaults, layout="none"),
        )

    def check_unchanged(self) -> None:
        """Raise UserError when the bundle's files are not those that were opened.

        Runtimes map weights and copy some: with a file that is overwritten under it, a live engine
        computes with old and new ones. Call it before keeping what engines computed.
        """
        for name, before in self.stamps.items():
            file = self.path / name
            now = stamp(file)
            if now == before:
                continue
            if now is None or file_entry(file)["sha256"] != self.manifest["files"][name]["sha256"]:
                raise UserError(
                    f"{file} was changed or removed during the run, which would mix the images of "
                    "two models; restore it and continue with `resume=True`, or begin another run."
                )
            self.stamps[name] = now  # the same bytes, with other times or in another place


def _checked(size: Any) -> Size:
    """`size` as two ints of at least 1; UserError for anything else."""
    several = isinstance(size, (list, tuple)) or (isinstance(size, np.ndarray) and size.ndim == 1)
    lengths = list(cast("Iterable[Any]", size)) if several else []
    if len(lengths) != 2 or not all(ranges.is_whole(length, 1) for length in lengths):
        raise UserError(f"`size` must be (height, width) in whole pixels, got {size!r}.")
    return int(lengths[0]), int(lengths[1])
