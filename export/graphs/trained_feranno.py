"""FERAnno on a checkpoint's own UNet: made anew for its training, saved, and read.

A checkpoint holds the trained head as a folder: model.safetensors, and config.json with the fields
of `FERAnnoConfig`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from synfer_rt.data.writers.atomic import write_whole
from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.contents import FERANNO_FOLDER, Checkpoint
from synfer_rt.export.files.json_files import read_json
from synfer_rt.export.networks.feranno import TIMESTEP, FERAnno
from synfer_rt.export.networks.modules import Conditioner, Denoiser, cross_attentions
from synfer_rt.export.sentences import first_line
from synfer_rt.vocabulary import label_schemes
from synfer_rt.vocabulary.prompts import expression_words

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class FERAnnoConfig:
    """What a trained head fits: classes, prompt, its own width, and the model's fingerprint."""

    label_scheme: str
    prompt: str
    width: int
    model: str


def prompt_of(label_scheme: str) -> str:
    """A sentence that names every class of the scheme."""
    words = (expression_words(name)[0] for name in label_schemes.scheme(label_scheme))
    return f"a photo of a {' '.join(words)} face"


def new_feranno(
    checkpoint: Checkpoint, conditioner: Conditioner, denoiser: Denoiser, config: FERAnnoConfig
) -> FERAnno:
    """FERAnno with a head of random weights on the checkpoint's UNet.

    Raises UserError for an unknown label scheme and for a UNet without cross-attention.
    """
    if not cross_attentions(denoiser.unet):
        raise UserError(
            "FERAnno reads cross-attention maps and this UNet has none; remove the folder "
            f"{FERANNO_FOLDER}/ from the checkpoint."
        )
    length = checkpoint.text_encoder.config.max_position_embeddings
    ids = checkpoint.tokenizer(config.prompt, truncation=True, max_length=length)["input_ids"]
    alpha_bar = Schedule.from_manifest(checkpoint.schedule).alphas_cumprod[TIMESTEP]
    return FERAnno(
        denoiser,
        fixed_conditioning(checkpoint, conditioner, config.prompt),
        len(ids),
        math.sqrt(alpha_bar),
        checkpoint.latent_shape,
        config.label_scheme,
        config.width,
    )


def fixed_conditioning(
    checkpoint: Checkpoint, conditioner: Conditioner, prompt: str
) -> dict[str, Tensor]:
    """The conditioner's outputs [1, ...] by name, for a prompt and zero AUs."""
    length = checkpoint.text_encoder.config.max_position_embeddings
    options = {"padding": "max_length", "truncation": True, "max_length": length}
    given = [torch.tensor(checkpoint.tokenizer([prompt] * 2, **options)["input_ids"])[None]]
    if conditioner.takes_aus:
        given += [torch.zeros(1, 2, checkpoint.units), torch.ones(1)]
    with torch.no_grad():
        outputs = conditioner(*given)
    return {name: tensor[:, 1] for name, tensor in zip(conditioner.outputs, outputs, strict=True)}


def read_feranno(
    checkpoint: Checkpoint, conditioner: Conditioner, denoiser: Denoiser
) -> tuple[FERAnno, str]:
    """The trained FERAnno in `checkpoint`'s folder, and its label scheme.

    Raises UserError when its files are unreadable, or were trained with another UNet, text encoder
    or AU adapter.
    """
    folder = checkpoint.directory / FERANNO_FOLDER
    again = "train it again on this checkpoint, or remove the folder"
    fields = read_json(folder / _CONFIG, again)
    try:
        config = FERAnnoConfig(**fields)
        if config.model != model_fingerprint(checkpoint):
            raise UserError(
                f"{folder} was trained with another UNet, text encoder or AU adapter than this "
                f"one; {again}."
            )
        feranno = new_feranno(checkpoint, conditioner, denoiser, config)
        feranno.head.load_state_dict(load_file(folder / _WEIGHTS))
    except (OSError, TypeError, RuntimeError, SafetensorError) as error:
        reason = first_line(error)
        raise UserError(
            f"{folder} does not hold a FERAnno that fits ({reason}); {again}."
        ) from None
    return feranno.eval().requires_grad_(False), config.label_scheme


def save_head(folder: Path, weights: Mapping[str, Tensor], config: FERAnnoConfig) -> None:
    """Write a head and its description into `folder`, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    write_whole(folder / _WEIGHTS, save(tensors))
    write_whole(folder / _CONFIG, (json.dumps(config.__dict__, indent=2) + "\n").encode())


def model_fingerprint(checkpoint: Checkpoint) -> str:
    """The fingerprint of all weights that FERAnno's output depends on."""
    parts = [fingerprint(part.state_dict()) for part in (checkpoint.unet, checkpoint.text_encoder)]
    if (adapter := checkpoint.adapter) is not None:
        keys = {f"to_k.{i}": tensor for i, tensor in adapter.to_k.items()}
        values = {f"to_v.{i}": tensor for i, tensor in adapter.to_v.items()}
        parts.append(fingerprint(adapter.projection.state_dict() | keys | values))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights by name, whatever their file; attention processors do not count."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        if ".processor." not in name:
            digest.update(name.encode())
            digest.update(tensor.detach().float().contiguous().numpy().data)
    return digest.hexdigest()
