"""Read a checkpoint: a diffusers Stable Diffusion directory, with SynFER's additions if any.

    model_index.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/     (diffusers)
    au_adapter.safetensors    the AU adapter (adapter.py), with au_adapter.json (settings.py); also
                              .bin, .ckpt, .pt or .pth, or a directory au_adapter/
    synfer.json               name, licence, defaults and what else settings.py reads
    classifiers/<name>.onnx   with <name>.json (classifier.py)
    au_reader.onnx            with au_reader.json (au_reader.py)
    annotator/                FERAnno (feranno.py)
    latent_classifier/, image_classifier/    networks that guide (guiding_classifier.py)
    layouts.npz               latents of neutral faces to start from

Only the first line is required. Everything wrong with a checkpoint is a UserError.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import transformers

from synfer_rt.bundle.engine_specs import IMAGE_AXES, LATENT_AXES
from synfer_rt.bundle.sizes import Size, Sizes, format_size
from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.adapter import AUAdapter, read_adapter
from synfer_rt.export.checkpoint.adapter_files import SUFFIXES
from synfer_rt.export.checkpoint.lora.merge import Lora, merge_lora, merge_tensors
from synfer_rt.export.checkpoint.scheduler import read_scheduler
from synfer_rt.export.checkpoint.settings import (
    SETTINGS_FILE,
    Settings,
    check_defaults,
    read_json,
    read_settings,
)
from synfer_rt.export.checkpoint.tensor_files import read_header_settings
from synfer_rt.export.checkpoint.weights import load_model, quiet, weight_files
from synfer_rt.export.networks.au_reader import AUReaderSource, read_au_reader
from synfer_rt.export.networks.classifier import ClassifierSource, read_classifier
from synfer_rt.export.networks.guiding_classifier import IMAGE_FOLDER, LATENT_FOLDER
from synfer_rt.export.networks.image_network import ImageNetwork
from synfer_rt.export.networks.modules import adapter_layers
from synfer_rt.export.sentences import first_line
from synfer_rt.vocabulary import facs

ADAPTER_FILES = tuple(f"au_adapter{suffix}" for suffix in (*SUFFIXES, ""))
"""An AU adapter's names within a checkpoint, the first one first; the last is a directory."""
AU_READER_FILE = "au_reader.onnx"
LAYOUTS_FILE = "layouts.npz"
FERANNO_FOLDER = "annotator"
"""FERAnno's folder, which keeps its first name so that checkpoints stay readable."""
ADDITIONS = (FERANNO_FOLDER, LATENT_FOLDER, IMAGE_FOLDER)
"""Folders of networks that were trained on what this very model makes, at its own size."""

_CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "scheduler": "",
    "tokenizer": "",
}


_PLAIN_BLOCKS = {
    "CrossAttnDownBlock2D",
    "DownBlock2D",
    "UNetMidBlock2DCrossAttn",
    "UpBlock2D",
    "CrossAttnUpBlock2D",
    None,
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, read and found consistent; the modules are in float32 and in eval mode.

    LoRAs are merged into their weights, and the UNet's `sample_size` is what is to be built;
    `additions` are those folders of ADDITIONS that serve it; `remarks` are sentences on what is
    done otherwise than the checkpoint says. What diffusers and transformers load
    is Any: their `config` has no type to check against."""

    directory: Path
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
    remarks: tuple[str, ...] = ()

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image's latents."""
        height, width = self.unet.config.sample_size
        return self.unet.config.in_channels, height, width

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        _, height, width = self.latent_shape
        return height * _factor(self.vae), width * _factor(self.vae)

    def latents_of(self, size: Size | None) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of an image of `size`; None: the default."""
        height, width = size or self.image_size
        return self.latent_shape[0], height // _factor(self.vae), width // _factor(self.vae)

    @property
    def free_axes(self) -> dict[str, int]:
        """Of which number the free heights and widths are multiples, by axis; none if fixed."""
        if self.sizes is None:
            return {}
        step = self.sizes.multiple_of
        return dict.fromkeys(IMAGE_AXES, step) | dict.fromkeys(
            LATENT_AXES, step // _factor(self.vae)
        )

    @property
    def units(self) -> int:
        """A, the length of the AU vector; 0 for a model without AUs."""
        return len(_unit_names(self.settings))

    @property
    def networks(self) -> dict[str, ImageNetwork]:
        """Its ONNX files by the engines that they become."""
        networks: dict[str, ImageNetwork] = {f"classifier.{c.name}": c for c in self.classifiers}
        return networks | ({"au-reader": self.au_reader} if self.au_reader else {})


def _unit_names(settings: Settings) -> tuple[str, ...]:
    vocabulary = settings.au_vocabulary
    return facs.vocabulary(vocabulary) if isinstance(vocabulary, str) else tuple(vocabulary or ())


def read_checkpoint(
    directory: Path,
    au_adapter: Path | None = None,
    classifiers: tuple[ClassifierSource, ...] = (),
    loras: Sequence[Lora] = (),
    resolution: Size | None = None,
    sizes: tuple[int, int] | None = None,
) -> Checkpoint:
    """Read `directory`; `au_adapter` replaces its adapter, `classifiers` its classifiers.

    `loras` (lora.parse_lora) are merged in their order, after one that comes with the adapter.
    `resolution` is (H, W) in pixels, None for the checkpoint's own. `sizes` are the smallest and
    the largest height and width of engines of free size, None for engines of one size. Layouts and
    ADDITIONS are for latents of one size: a checkpoint that is built at another goes without both,
    one of free size without the additions.
    Raises UserError for whatever is missing, unreadable, unsupported or does not fit together.
    """
    if directory.is_file():
        raise UserError(
            f"{directory} is a file; make a directory of it with diffusers' "
            f'StableDiffusionPipeline.from_single_file("{directory}").save_pretrained(DIR), and '
            "give that."
        )
    if not directory.is_dir():
        raise UserError(
            f"There is no directory {directory}; `hf download NAME --local-dir DIR` fetches a "
            "model of the Hugging Face Hub."
        )
    index = read_json(directory / "model_index.json", "a diffusers directory has one")
    for part, wanted in _CLASSES.items():
        entry = index.get(part)
        found = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if found is None and (directory / part).is_dir():
            raise UserError(
                f"{directory / 'model_index.json'} names no class of {part}; fetch it again."
            )
        if not (directory / part).is_dir():
            raise UserError(
                f"{directory} has no {part}/; give a whole Stable Diffusion directory in "
                "diffusers' format."
            )
        if wanted and found != wanted:
            raise UserError(
                f"{directory} has a {found} as {part}, this exporter reads {wanted}; "
                "give a Stable Diffusion 1.x or 2.x checkpoint."
            )
    unet = load_model(diffusers.UNet2DConditionModel, directory / "unet")
    vae = load_model(diffusers.AutoencoderKL, directory / "vae")
    text_encoder = load_model(transformers.CLIPTextModel, directory / "text_encoder")
    _check_anatomy(directory, unet, vae, text_encoder)
    resized = _set_size(directory, unet, vae, resolution)

    own = [file for name in ADAPTER_FILES if (file := directory / name).exists()]
    path = au_adapter or (own or [directory / ADAPTER_FILES[0]])[0]
    adapter = None
    if au_adapter or own:
        adapter = read_adapter(path, adapter_layers(unet), unet.config.cross_attention_dim)
    file = directory / LAYOUTS_FILE
    layouts = file if file.is_file() and not resized else None
    scheduler = read_scheduler(directory / "scheduler", index["scheduler"][1])
    settings = read_settings(
        directory, adapter, path, unet, text_encoder, layouts is not None, scheduler.solver
    )
    if adapter is not None:
        adapter = replace(adapter, maximum=settings.au_maximum)
        if settings.activation is not None:
            adapter.projection.activate(settings.activation)
    with quiet():
        if adapter is not None and adapter.lora:
            header = {k: v for f in adapter.files for k, v in read_header_settings(f).items()}
            beside = adapter.files[0].parent if path.is_dir() else path
            merge_tensors(adapter.lora, unet, text_encoder, 1.0, beside, header)
        for lora in loras:
            merge_lora(lora, unet, text_encoder)
    check_defaults(
        directory / SETTINGS_FILE,
        settings.defaults,
        scheduler.schedule,
        scheduler.prediction_type,
    )
    if not classifiers:
        files = sorted((directory / "classifiers").glob("*.onnx"))
        classifiers = tuple(read_classifier(file) for file in files)
    file, au_reader = directory / AU_READER_FILE, None
    if file.is_file():
        au_reader = read_au_reader(file, _unit_names(settings))
    one_size = not (resized or sizes)
    additions = [name for name in ADDITIONS if one_size and (directory / name).is_dir()]

    parts = ("unet", "vae", "text_encoder", *additions)
    weights = [file for part in parts for file in weight_files(directory / part)]
    weights += adapter.files if adapter else []
    weights += [file for lora in loras for file in lora.files]
    weights += [source.path for source in classifiers]
    weights += [au_reader.path] if au_reader else []
    return Checkpoint(
        directory=directory,
        settings=settings,
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=_tokenizer(directory / "tokenizer"),
        adapter=adapter,
        schedule=scheduler.schedule,
        prediction_type=scheduler.prediction_type,
        classifiers=classifiers,
        au_reader=au_reader,
        additions=tuple(additions),
        layouts=layouts,
        weight_files=tuple(weights),
        sizes=sizes and _sizes(directory, unet, vae, *sizes),
        remarks=scheduler.remarks,
    )


def _factor(vae: Any) -> int:
    """Pixels of an edge to one latent position."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def _step(unet: Any, vae: Any) -> int:
    """Of how many pixels an edge must be a multiple, for the UNet to halve its latents."""
    return _factor(vae) * 2 ** (len(unet.config.block_out_channels) - 1)


def _sizes(directory: Path, unet: Any, vae: Any, least: int, most: int) -> Sizes:
    step = _step(unet, vae)
    try:
        sizes = Sizes(least, most, step)
    except ValueError:
        low = max(round(least / step), 1) * step
        near = f"{low}:{max(round(most / step) * step, low + step)}"
        raise UserError(
            f"{directory} cannot make images of {least} to {most} pixels: the smallest and the "
            f"largest edge must be different multiples of {step}; write --sizes {near}."
        ) from None
    default = tuple(n * _factor(vae) for n in unet.config.sample_size)
    if not sizes.allow(default):
        raise UserError(
            f"The images of {directory} are {format_size(default)}, not of {sizes}; widen --sizes, "
            "or give a --resolution within."
        )
    return sizes


def _set_size(directory: Path, unet: Any, vae: Any, resolution: Size | None) -> bool:
    """Write the latents' (h, w) into the UNet's config; whether they are not the checkpoint's."""
    size = unet.config.sample_size
    if isinstance(size, int):
        # Checkpoints of the first versions of diffusers say 32 where they were trained at 64.
        version = re.match(r"0\.(\d+)\.", str(unet.config.get("_diffusers_version") or ""))
        early = version is not None and int(version[1]) < 9
        size = (64, 64) if early and size == 32 else (size, size)
    height, width = native = (int(size[0]), int(size[1]))
    if resolution is not None:
        multiple = _step(unet, vae)
        if any(pixels % multiple for pixels in resolution):
            near = (max(multiple, round(pixels / multiple) * multiple) for pixels in resolution)
            raise UserError(
                f"{directory} cannot make images of {format_size(resolution)}: height and "
                f"width must be multiples of {multiple}; the nearest is {'x'.join(map(str, near))}."
            )
        height, width = (pixels // _factor(vae) for pixels in resolution)
    unet.register_to_config(sample_size=(height, width))
    return (height, width) != native


def _check_anatomy(directory: Path, unet: Any, vae: Any, text_encoder: Any) -> None:
    config = unet.config
    channels, latent = config.in_channels, vae.config.latent_channels
    problem = None
    if not channels == config.out_channels == latent:
        problem = (
            f"the UNet has {channels} channels in, {config.out_channels} out, the VAE {latent}"
        )
    elif not _PLAIN_BLOCKS.issuperset(
        (*config.down_block_types, *config.up_block_types, config.mid_block_type)
    ):
        kinds = {*config.down_block_types, *config.up_block_types, config.mid_block_type}
        problem = f"the UNet has blocks {', '.join(map(str, kinds - _PLAIN_BLOCKS))}"
    elif config.dual_cross_attention or config.only_cross_attention:
        problem = "the UNet's cross-attention is not that of Stable Diffusion"
    elif getattr(text_encoder.config, "use_attention_mask", False):
        problem = "the text encoder wants a mask over the padding"
    elif config.cross_attention_dim != text_encoder.config.hidden_size:
        width = text_encoder.config.hidden_size
        problem = f"the UNet reads text of width {config.cross_attention_dim}, not {width}"
    elif config.class_embed_type not in (None, "projection") or config.num_class_embeds:
        problem = "the UNet has a class embedding that is no projection"
    elif config.time_cond_proj_dim:
        problem = (
            f"the UNet has a guidance embedding (time_cond_proj_dim {config.time_cond_proj_dim}), "
            "as models distilled to few steps have"
        )
    elif config.addition_embed_type or config.encoder_hid_dim_type:
        problem = "the UNet takes more conditioning than text and class labels"
    elif not config.sample_size:
        problem = "the UNet's config.json has no sample_size"
    elif vae.config.latents_mean is not None or vae.config.latents_std is not None:
        problem = "the VAE normalises its latents per channel"
    if problem:
        raise UserError(
            f"{directory} cannot be exported: {problem}; give a text-to-image Stable Diffusion "
            "1.x or 2.x checkpoint."
        )


def _tokenizer(folder: Path) -> Any:
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # tokenizers raises plain Exception
        reason = first_line(error)
        raise UserError(f"{folder} holds no tokenizer ({reason}); fetch it again.") from error
    if not tokenizer.is_fast:
        raise UserError(f"{folder} holds no tokenizer that `tokenizers` can run; give a CLIP one.")
    return tokenizer
