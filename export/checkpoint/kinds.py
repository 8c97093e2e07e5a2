"""The kinds of checkpoints that can be exported: how they are told apart, and how to add one.

A kind is a family of models whose parts have the same classes in diffusers and transformers. The
classes are named in model_index.json, and `kind_of` tells by them which of KINDS a checkpoint is.
`problem` says what else must hold, from the configurations of the loaded parts.

Stable Diffusion 1.x and 2.x and synfer-mini are one kind: they pass through the same modules, and
the reader takes from their files what differs:

                        1.x              2.x                synfer-mini
    text encoder        CLIP ViT-L/14    OpenCLIP ViT-H/14  a small CLIP      text_encoder/
    cross_attention_dim 768              1024               128               unet/config.json
    prediction_type     epsilon          v_prediction       v_prediction      scheduler/
    class embedding     none             none               projection        unet/config.json
    guidance embedding  of LCM's models  none               none              unet/config.json
    image size          512              768                64                unet/, vae/config.json

To add a kind:

1. Add a `Kind` to KINDS: its name in messages, the class of each part, and `problem`.
2. If its networks take or give other tensors, write a module in networks/modules.py and choose it
   in graphs/engine_graphs.py, by `checkpoint.kind`. The inputs and outputs of each engine are fixed
   (synfer_rt/bundle/engine_specs.py).
3. If other settings matter, read them in checkpoint/scheduler.py or checkpoint/settings.py.
4. Add a tiny checkpoint of random weights to tests/export/tiny_checkpoint.py, and to
   tests/export/checkpoint/test_pipelines.py, which compares the bundle's images with those of the
   diffusers pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import transformers

from synfer_rt.errors import UserError

PARTS = ("unet", "vae", "text_encoder", "scheduler", "tokenizer")
"""The folders that every checkpoint has."""

_PLAIN_BLOCKS = {
    "CrossAttnDownBlock2D",
    "DownBlock2D",
    "UNetMidBlock2DCrossAttn",
    "UpBlock2D",
    "CrossAttnUpBlock2D",
    None,
}


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint.

    `name` completes "a … checkpoint" in a message. `classes` are those of the networks, by folder:
    each has `from_pretrained`. `problem` takes the loaded UNet, VAE and text encoder and completes
    "cannot be exported: …", or is None for networks that can be.
    """

    name: str
    classes: Mapping[str, Any]
    problem: Callable[[Any, Any, Any], str | None]


def _unlike_stable_diffusion(unet: Any, vae: Any, text_encoder: Any) -> str | None:
    config = unet.config
    blocks = {*config.down_block_types, *config.up_block_types, config.mid_block_type}
    channels = config.in_channels, config.out_channels, vae.config.latent_channels
    if len({*channels}) > 1:
        return "the UNet has {} channels in, {} out, the VAE {}".format(*channels)
    if not blocks <= _PLAIN_BLOCKS:
        return f"the UNet has blocks {', '.join(map(str, blocks - _PLAIN_BLOCKS))}"
    if config.dual_cross_attention or config.only_cross_attention:
        return "the UNet's cross-attention is not that of Stable Diffusion"
    if getattr(text_encoder.config, "use_attention_mask", False):
        return "the text encoder wants a mask over the padding"
    if config.cross_attention_dim != text_encoder.config.hidden_size:
        width = text_encoder.config.hidden_size
        return f"the UNet reads text of width {config.cross_attention_dim}, not {width}"
    if config.class_embed_type not in (None, "projection") or config.num_class_embeds:
        return "the UNet has a class embedding that is no projection"
    if config.addition_embed_type or config.encoder_hid_dim_type:
        return "the UNet takes more conditioning than text and class labels"
    if not config.sample_size:
        return "the UNet's config.json has no sample_size"
    if vae.config.latents_mean is not None or vae.config.latents_std is not None:
        return "the VAE normalises its latents per channel"
    return None


STABLE_DIFFUSION = Kind(
    "text-to-image Stable Diffusion 1.x or 2.x",
    {
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
        "text_encoder": transformers.CLIPTextModel,
    },
    _unlike_stable_diffusion,
)

KINDS: tuple[Kind, ...] = (STABLE_DIFFUSION,)
"""All kinds that can be exported. Of several with the same classes, the first is taken."""


def kind_of(directory: Path, index: Mapping[str, Any]) -> Kind:
    """The kind of the checkpoint `directory`, whose model_index.json says `index`.

    Raises UserError for a part that is missing or not named, and for classes of no kind.
    """
    found = {part: _class_of(directory, index, part) for part in PARTS}

    def others(kind: Kind) -> list[str]:
        return [part for part, loader in kind.classes.items() if found[part] != loader.__name__]

    kind = min(KINDS, key=lambda kind: len(others(kind)))
    for part in others(kind):
        raise UserError(
            f"{directory} has a {found[part]} as {part}, not a {kind.classes[part].__name__}; "
            f"give a {' or a '.join(kind.name for kind in KINDS)} checkpoint."
        )
    return kind


def check_networks(directory: Path, kind: Kind, unet: Any, vae: Any, text_encoder: Any) -> None:
    """Raise UserError for networks that cannot be exported as this kind."""
    if problem := kind.problem(unet, vae, text_encoder):
        raise UserError(
            f"{directory} cannot be exported: {problem}; give a {kind.name} checkpoint."
        )


def _class_of(directory: Path, index: Mapping[str, Any], part: str) -> str | None:
    """The class that model_index.json names for `part`."""
    entry = index.get(part)
    found = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    if not (directory / part).is_dir():
        raise UserError(
            f"{directory} has no {part}/; give a whole Stable Diffusion directory in diffusers' "
            "format."
        )
    if found is None:
        raise UserError(
            f"{directory / 'model_index.json'} names no class of {part}; fetch it again."
        )
    return found
