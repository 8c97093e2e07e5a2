"""Read a checkpoint: a diffusers Stable Diffusion directory, with SynFER's additions if any.

    model_index.json, unet/, vae/, text_encoder/, tokenizer/, scheduler/     (diffusers)
    au_adapter.safetensors    the AU adapter (adapter.py)
    synfer.json               name, licence, defaults and what else settings.py reads
    classifiers/<name>.onnx   with <name>.json (classifier.py)
    layouts.npz               latents of neutral faces to start from

Only the first line is required. Everything wrong with a checkpoint is a UserError.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import transformers

from synfer_rt import facs
from synfer_rt.errors import UserError
from synfer_rt.schedule import BETA_SCHEDULES, SPACINGS
from synfer_rt.solvers import PREDICTION_TYPES

from .adapter import AUAdapter, read_adapter
from .classifier import ClassifierSource, read_classifier
from .modules import cross_attentions
from .settings import Settings, read_json, read_settings

ADAPTER_FILE = "au_adapter.safetensors"
LAYOUTS_FILE = "layouts.npz"

_CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "scheduler": "",
    "tokenizer": "",
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, read and found consistent; the modules are in float32 and in eval mode.

    What diffusers and transformers load is Any: their `config` has no type to check against."""

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
    layouts: Path | None
    weight_files: tuple[Path, ...]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image's latents."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        _, height, width = self.latent_shape
        return height * factor, width * factor

    @property
    def units(self) -> int:
        """A, the length of the AU vector; 0 for a model without AUs."""
        vocabulary = self.settings.au_vocabulary
        if isinstance(vocabulary, str):
            return len(facs.vocabulary(vocabulary))
        return len(vocabulary or ())


def read_checkpoint(
    directory: Path,
    au_adapter: Path | None = None,
    classifiers: tuple[ClassifierSource, ...] = (),
) -> Checkpoint:
    """Read `directory`; `au_adapter` replaces its adapter, `classifiers` its classifiers.

    Raises UserError for whatever is missing, unreadable, unsupported or does not fit together.
    """
    index = read_json(directory / "model_index.json", "a diffusers directory has one")
    for part, wanted in _CLASSES.items():
        found = (index.get(part) or [None, None])[1]
        if found is None or not (directory / part).is_dir():
            raise UserError(
                f"{directory} has no {part}/; give a whole Stable Diffusion directory in "
                "diffusers' format."
            )
        if wanted and found != wanted:
            raise UserError(
                f"{directory} has a {found} as {part}, this exporter reads {wanted}; "
                "give a Stable Diffusion 1.x or 2.x checkpoint."
            )
    unet = _load(diffusers.UNet2DConditionModel, directory / "unet")
    vae = _load(diffusers.AutoencoderKL, directory / "vae")
    text_encoder = _load(transformers.CLIPTextModel, directory / "text_encoder")
    _check_anatomy(directory, unet, vae, text_encoder)

    path = au_adapter or directory / ADAPTER_FILE
    adapter = None
    if au_adapter or path.is_file():
        widths = {i: layer.inner_dim for i, layer in cross_attentions(unet).items()}
        adapter = read_adapter(path, widths, unet.config.cross_attention_dim)
    layouts = directory / LAYOUTS_FILE
    settings = read_settings(directory, adapter, unet, text_encoder, layouts.is_file())
    schedule, prediction_type = _schedule(directory / "scheduler")
    if not classifiers:
        files = sorted((directory / "classifiers").glob("*.onnx"))
        classifiers = tuple(read_classifier(file) for file in files)

    weights = [f for part in ("unet", "vae", "text_encoder") for f in _weights(directory / part)]
    weights += [path] if adapter else []
    weights += [source.path for source in classifiers]
    return Checkpoint(
        directory=directory,
        settings=settings,
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=_tokenizer(directory / "tokenizer"),
        adapter=adapter,
        schedule=schedule,
        prediction_type=prediction_type,
        classifiers=classifiers,
        layouts=layouts if layouts.is_file() else None,
        weight_files=tuple(weights),
    )


def source_hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """SHA-256 of every weight file, by its path within the checkpoint or its name outside it."""
    hashes = {}
    for file in checkpoint.weight_files:
        inside = file.is_relative_to(checkpoint.directory)
        name = file.relative_to(checkpoint.directory).as_posix() if inside else file.name
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        hashes[name] = digest.hexdigest()
    return hashes


def _weights(folder: Path) -> list[Path]:
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    safe = [file for file in files if file.suffix == ".safetensors"]
    whole = [file for file in safe or files if ".fp16." not in file.name]
    return whole or safe or files


def _load(model: Any, folder: Path) -> Any:
    """A model of diffusers or transformers with all its weights, float32, frozen, in eval mode."""
    files = _weights(folder)
    if not files:
        raise UserError(f"{folder} holds no weights (*.safetensors); fetch the checkpoint again.")
    options = {"variant": "fp16"} if ".fp16." in files[0].name else {}
    try:
        with _quiet():
            module, report = model.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, **options
            )
    except Exception as error:  # each format and library raises its own kinds
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(
            f"{folder} cannot be loaded as {model.__name__} ({reason}); fetch the checkpoint again."
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} weights of its {model.__name__}, such as {missing[0]}; "
            "fetch the checkpoint again."
        )
    return module.float().requires_grad_(False).eval()


def _check_anatomy(directory: Path, unet: Any, vae: Any, text_encoder: Any) -> None:
    config = unet.config
    channels, latent = config.in_channels, vae.config.latent_channels
    problem = None
    if not channels == config.out_channels == latent:
        problem = (
            f"the UNet has {channels} channels in, {config.out_channels} out, the VAE {latent}"
        )
    elif config.cross_attention_dim != text_encoder.config.hidden_size:
        width = text_encoder.config.hidden_size
        problem = f"the UNet reads text of width {config.cross_attention_dim}, not {width}"
    elif config.class_embed_type not in (None, "projection") or config.num_class_embeds:
        problem = "the UNet has a class embedding that is no projection"
    elif config.addition_embed_type or config.encoder_hid_dim_type or config.time_cond_proj_dim:
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


def _schedule(folder: Path) -> tuple[dict[str, Any], str]:
    """The manifest's `schedule` and prediction type, with the scheduler class's own defaults.

    Clipping and thresholding of the clean image are not part of it: they are for pixels, and a
    latent model is trained without.
    """
    given = read_json(folder / "scheduler_config.json", "fetch the checkpoint again")
    scheduler = getattr(diffusers, str(given.get("_class_name")), None)
    if scheduler is None:
        raise UserError(f"{folder} names no scheduler of diffusers; name DDIMScheduler, say.")
    with _quiet():
        config = scheduler.from_config(given).config
    if config.get("trained_betas") is not None or "beta_schedule" not in config:
        raise UserError(f"{folder} has betas of its own; known are {', '.join(BETA_SCHEDULES)}.")
    schedule = {
        "num_train_timesteps": config["num_train_timesteps"],
        "beta_schedule": config["beta_schedule"],
        "beta_start": config["beta_start"],
        "beta_end": config["beta_end"],
        "rescale_zero_terminal_snr": bool(config.get("rescale_betas_zero_snr", False)),
        "timestep_spacing": config.get("timestep_spacing", "leading"),
        "steps_offset": config.get("steps_offset", 0),
        "set_alpha_to_one": bool(config.get("set_alpha_to_one", True)),
    }
    prediction_type = config.get("prediction_type", "epsilon")
    for value, known, what in (
        (schedule["beta_schedule"], BETA_SCHEDULES, "beta schedule"),
        (schedule["timestep_spacing"], SPACINGS, "timestep spacing"),
        (prediction_type, PREDICTION_TYPES, "prediction type"),
    ):
        if value not in known:
            raise UserError(f"{folder} has the {what} {value!r}; known are {', '.join(known)}.")
    return schedule, prediction_type


def _tokenizer(folder: Path) -> Any:
    try:
        with _quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises plain Exception
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(f"{folder} holds no tokenizer ({reason}); fetch it again.") from error
    if not tokenizer.is_fast:
        raise UserError(f"{folder} holds no tokenizer that `tokenizers` can run; give a CLIP one.")
    return tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the loaders' remarks and progress bars; what matters of them is checked instead."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    bars = [library.utils.logging for library in (diffusers, transformers)]
    shown = [bar.is_progress_bar_enabled() for bar in bars]
    for logger, bar in zip(loggers, bars, strict=True):
        logger.setLevel(logging.ERROR)
        bar.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level, bar, on in zip(loggers, levels, bars, shown, strict=True):
            logger.setLevel(level)
            if on:
                bar.enable_progress_bar()
