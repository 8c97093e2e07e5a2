"""The engines of a model as PyTorch modules, with example inputs of any batch and size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from synfer_rt.sizes import Size
from synfer_rt.solvers import HISTORY_SLOTS

from .checkpoint import Checkpoint
from .modules import Conditioner, Decoder, Denoiser, Encoder
from .tokenizer import PROBES

ENGINES = ("conditioner", "denoiser", "decoder", "encoder")
"""The engines of every model; its classifiers come besides."""


class Inputs(Protocol):
    """Example inputs by name, in the order of the forward's arguments."""

    def __call__(self, batch: int, size: Size | None = None) -> Mapping[str, Tensor]:
        """Those of `batch` images of `size` pixels, by default the checkpoint's."""
        ...


@dataclass(frozen=True)
class Graph:
    """A module to export; `static` are the inputs that have no batch in front."""

    module: nn.Module
    inputs: Inputs
    outputs: tuple[str, ...]
    static: frozenset[str] = frozenset()


def engine_graph(checkpoint: Checkpoint, name: str, max_length: int) -> Graph:
    """The engine `name` of ENGINES; prompts have `max_length` tokens.

    What of the checkpoint's modules fixes the batch is replaced in place.
    """
    if name == "decoder":
        return Graph(Decoder(checkpoint.vae).eval(), _latents(checkpoint), ("images",))
    if name == "encoder":
        images = images_of(checkpoint.image_size)
        return Graph(Encoder(checkpoint.vae).eval(), images, ("mean", "logvar"))
    conditioner = Conditioner(
        checkpoint.text_encoder,
        checkpoint.unet,
        checkpoint.adapter,
        checkpoint.settings.class_labels,
    ).eval()
    given = _to_condition(checkpoint, conditioner.takes_aus, max_length)
    if name == "conditioner":
        return Graph(conditioner, given, conditioner.outputs)
    return Graph(
        Denoiser(checkpoint.unet, conditioner.outputs, checkpoint.adapter).eval(),
        _to_denoise(checkpoint, conditioner, given),
        ("next_latents", "next_history", "prediction"),
        frozenset({"timestep", "coefficients"}),
    )


def images_of(default: Size) -> Inputs:
    """Random images [B, 3, H, W] in [0, 1], of the size `default` unless another is asked for."""
    return lambda batch, size=None: {
        "images": torch.rand((batch, 3, *(size or default)), generator=_generator(batch))
    }


def _latents(checkpoint: Checkpoint) -> Inputs:
    return lambda batch, size=None: {
        "latents": torch.randn((batch, *checkpoint.latents_of(size)), generator=_generator(batch))
    }


def _to_condition(checkpoint: Checkpoint, takes_aus: bool, max_length: int) -> Inputs:
    def inputs(batch: int, size: Size | None = None) -> dict[str, Tensor]:
        texts = [text for i in range(batch) for text in ("", PROBES[1 + i % (len(PROBES) - 1)])]
        options = {"padding": "max_length", "truncation": True, "max_length": max_length}
        ids = checkpoint.tokenizer(texts, **options)["input_ids"]
        given = {"tokens": torch.tensor(ids).view(batch, 2, max_length)}
        if takes_aus:
            draw = _generator(batch)
            aus = torch.rand(batch, 2, checkpoint.units, generator=draw)
            aus[:, 0] = 0
            given |= {"aus": aus, "au_scale": 0.5 + torch.rand(batch, generator=draw)}
        return given

    return inputs


def _to_denoise(checkpoint: Checkpoint, conditioner: Conditioner, given: Inputs) -> Inputs:
    def inputs(batch: int, size: Size | None = None) -> dict[str, Tensor]:
        latents = checkpoint.latents_of(size)
        draw = _generator(batch)
        with torch.no_grad():
            conditioning = conditioner(*given(batch).values())
        return {
            **_latents(checkpoint)(batch, size),
            "history": torch.randn(batch, HISTORY_SLOTS, *latents, generator=draw),
            "timestep": torch.tensor(checkpoint.schedule["num_train_timesteps"] / 2),
            "guidance": 1 + 4 * torch.rand(batch, generator=draw),
            "coefficients": torch.randn(HISTORY_SLOTS + 1, HISTORY_SLOTS + 2, generator=draw),
            **dict(zip(conditioner.outputs, conditioning, strict=True)),
        }

    return inputs


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
