"""What a checkpoint holds: a diffusers Stable Diffusion directory, with SynFER's additions if any.

    model_index.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/     (diffusers)
    au_adapter.safetensors    the AU adapter (files/au_adapter.py), with au_adapter.json
                              (settings.py); also .bin, .ckpt, .pt or .pth, or a directory
                              au_adapter/
    synfer.json               name, licence, defaults and what else settings.py reads
    classifiers/<name>.onnx   with <name>.json (networks/classifier.py)
    au_reader.onnx            with au_reader.json (networks/au_reader.py)
    annotator/                FERAnno (graphs/trained_feranno.py)
    latent_classifier/, image_classifier/    networks that guide (networks/guiding_classifier.py)
    image_classifier.onnx     with image_classifier.json, in place of that folder
                              (networks/guiding_onnx.py)
    distilled_unet/           a student of the UNet (distilled.py)
    layouts.npz               latents of neutral faces to start from

Only the first line is required.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synfer_rt.bundle.engine_specs import IMAGE_AXES, LATENT_AXES
from synfer_rt.bundle.face_template import ARCFACE, FaceTemplate, read_template
from synfer_rt.bundle.sizes import Size, Sizes
from synfer_rt.export.checkpoint.distilled import DISTILLED_FOLDER
from synfer_rt.export.checkpoint.image_sizes import pixels_per_latent
from synfer_rt.export.checkpoint.kinds import Kind
from synfer_rt.export.checkpoint.settings import Settings
from synfer_rt.export.files.au_adapter import AUAdapter
from synfer_rt.export.files.au_adapter_files import SUFFIXES
from synfer_rt.export.files.model_folder import weight_files
from synfer_rt.export.networks.au_reader import AUReaderSource
from synfer_rt.export.networks.classifier import ClassifierSource
from synfer_rt.export.networks.guiding_classifier import IMAGE_FOLDER, LATENT_FOLDER
from synfer_rt.export.networks.image_network import ImageNetwork

ADAPTER_FILES = tuple(f"au_adapter{suffix}" for suffix in (*SUFFIXES, ""))
"""An AU adapter's names within a checkpoint, the first one first; the last is a directory."""
AU_READER_FILE = "au_reader.onnx"
LAYOUTS_FILE = "layouts.npz"
FERANNO_FOLDER = "annotator"
"""FERAnno's folder, which keeps its first name so that checkpoints stay readable."""
ADDITIONS = (FERANNO_FOLDER, LATENT_FOLDER, IMAGE_FOLDER, DISTILLED_FOLDER)
"""Folders of networks that were trained on the images of this very model, at its own size."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, read and found consistent; the modules are in float32 and in eval mode.

    LoRAs are merged into the weights, and the UNet's `sample_size` is the size that is built.
    `scheduler_changes` are settings that take the place of those in scheduler_config.json.
    `additions` are those folders of ADDITIONS that fit this size; `remarks` are sentences on what
    is done otherwise than the checkpoint says. `cache_depth` is the depth of engines that cache
    features (networks/cached_unet.py), None for a bundle without them. `guide` is an ONNX file and
    `guide_folder` a folder that guides in place of image_classifier/, if one does. The modules and
    the tokenizer are Any, since their `config` has no type to check against.
    """

    directory: Path
    kind: Kind
    settings: Settings
    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    adapter: AUAdapter | None
    schedule: dict[str, Any]
    prediction_type: str
    classifiers: tuple[ClassifierSource, ...]
    au_reader: AUReaderSource | None
    additions: tuple[str, ...]
    layouts: Path | None
    weight_files: tuple[Path, ...]
    sizes: Sizes | None
    scheduler_changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    remarks: tuple[str, ...] = ()
    cache_depth: int | None = None
    guide: ClassifierSource | None = None
    guide_folder: Path | None = None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image's latents."""
        height, width = self.unet.config.sample_size
        return self.unet.config.in_channels, height, width

    @property
    def embeds_guidance(self) -> bool:
        """Whether the UNet takes the scale of guidance as an input, instead of two branches."""
        return bool(self.unet.config.time_cond_proj_dim)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        _, height, width = self.latent_shape
        return height * pixels_per_latent(self.vae), width * pixels_per_latent(self.vae)

    @property
    def face_template(self) -> FaceTemplate:
        """Where the model expects the points of a face; ARCFACE if the checkpoint does not say."""
        if (points := self.settings.face_template) is None:
            return ARCFACE
        return read_template(points, self.image_size)

    def latents_of(self, size: Size | None) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of an image of `size`; None: the default."""
        height, width = size or self.image_size
        factor = pixels_per_latent(self.vae)
        return self.latent_shape[0], height // factor, width // factor

    @property
    def free_axes(self) -> dict[str, int]:
        """The number of which each free height and width is a multiple, by axis; none if fixed."""
        if self.sizes is None:
            return {}
        step = self.sizes.multiple_of
        latent_step = step // pixels_per_latent(self.vae)
        return dict.fromkeys(IMAGE_AXES, step) | dict.fromkeys(LATENT_AXES, latent_step)

    @property
    def units(self) -> int:
        """A, the length of the AU vector; 0 for a model without AUs."""
        return len(self.settings.au_names)

    def folder(self, part: str) -> Path:
        """Where a part of the checkpoint, such as `unet` or one of ADDITIONS, lies."""
        if part == IMAGE_FOLDER and self.guide_folder is not None:
            return self.guide_folder
        return self.directory / part

    def guided_by(self, guide: ClassifierSource | Path) -> Checkpoint:
        """The checkpoint with this ONNX file or folder as its guide of images."""
        folder, former = self.folder(IMAGE_FOLDER), self.guide and self.guide.path
        kept = [file for file in self.weight_files if folder != file.parent and file != former]
        others = tuple(name for name in self.additions if name != IMAGE_FOLDER)
        if isinstance(guide, Path):
            return replace(
                self,
                guide=None,
                guide_folder=guide,
                additions=tuple(n for n in ADDITIONS if n in (*others, IMAGE_FOLDER)),
                weight_files=(*kept, *weight_files(guide)),
            )
        return replace(self, guide=guide, additions=others, weight_files=(*kept, guide.path))

    @property
    def networks(self) -> dict[str, ImageNetwork]:
        """The checkpoint's ONNX files by the engines that they become."""
        networks: dict[str, ImageNetwork] = {f"classifier.{c.name}": c for c in self.classifiers}
        return networks | ({"au-reader": self.au_reader} if self.au_reader else {})
