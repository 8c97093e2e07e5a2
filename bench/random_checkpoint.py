"""A Stable-Diffusion-1.5-size checkpoint of random weights with an adapter in SynFER's format.

It measures what a real one would cost (time, memory, numeric error) without fetching one:

    python -m synfer_rt.bench.random_checkpoint DIRECTORY

`--plain` leaves the adapter out, so that other systems can make the same images. `--thin` keeps the
structure, every layer of it, and makes the layers narrow: its engines have the
nodes of the real ones, and are built and run within minutes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from synfer_rt.commands.options import LocalPath

LENGTH = 77
"""Tokens of a prompt."""
UNITS = 41
"""Action units of the adapter: OpenGraphAU's."""
HEADS = 8
"""Attention heads of the UNet."""
_VOCABULARY = 49408


@dataclass(frozen=True)
class Widths:
    """How wide the layers are. Depths and connections are those of Stable Diffusion 1.5."""

    text: int
    """States of the text encoder, in heads of 64."""
    unet: tuple[int, ...]
    """Channels at each resolution, of the largest first."""
    vae: tuple[int, ...]
    image: int
    """Height and width of the images in pixels."""


FULL = Widths(768, (320, 640, 1280, 1280), (128, 256, 512, 512), 512)
THIN = Widths(64, (64, 128, 256, 256), (64, 128, 256, 256), 128)
"""Each group of a normalisation has two channels, as few as fused kernels take."""


def make_checkpoint(directory: Path, widths: Widths = FULL, adapter: bool = True) -> None:
    """Write the checkpoint (4.5 GB) part by part: no more than the UNet is in memory."""
    import torch

    torch.manual_seed(0)
    _write_unet(directory, widths, adapter)
    _write_vae(directory, widths)
    _write_text_encoder(directory, widths)
    _write_scheduler(directory)
    _write_tokenizer(directory / "tokenizer")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
    }
    (directory / "model_index.json").write_text(json.dumps(index, indent=1))


def _write_unet(directory: Path, widths: Widths, adapter: bool) -> None:
    import diffusers

    unet: Any = diffusers.UNet2DConditionModel(
        sample_size=widths.image // 8,
        cross_attention_dim=widths.text,
        attention_head_dim=HEADS,  # which of this model diffusers reads as the number of heads
        block_out_channels=widths.unet,
    )
    unet.save_pretrained(directory / "unet")
    if adapter:
        _write_adapter(directory, widths, unet)


def _write_adapter(directory: Path, widths: Widths, unet: Any) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {
        "image_proj.proj.weight": torch.randn(widths.text, UNITS) / UNITS**0.5,
        "image_proj.proj.bias": torch.zeros(widths.text),
    }
    for i, name in enumerate(unet.attn_processors):
        layer = unet.get_submodule(name.removesuffix(".processor"))
        if layer.is_cross_attention:
            for kind in ("k", "v"):
                weight = torch.randn(layer.inner_dim, widths.text) / widths.text**0.5
                tensors[f"ip_adapter.{i}.to_{kind}_ip.weight"] = weight
    save_file(tensors, directory / "au_adapter.safetensors")


def _write_vae(directory: Path, widths: Widths) -> None:
    import diffusers

    vae: Any = diffusers.AutoencoderKL  # its annotations allow one level only
    vae(
        latent_channels=4,
        layers_per_block=2,
        sample_size=widths.image,
        block_out_channels=widths.vae,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(directory / "vae")


def _write_text_encoder(directory: Path, widths: Widths) -> None:
    import transformers
    from safetensors.torch import load_file, save_file

    config: Any = transformers.CLIPTextConfig(
        vocab_size=_VOCABULARY,
        hidden_size=widths.text,
        intermediate_size=4 * widths.text,
        num_hidden_layers=12,
        num_attention_heads=widths.text // 64,
        max_position_embeddings=LENGTH,
        hidden_act="quick_gelu",
        projection_dim=widths.text,
        bos_token_id=_VOCABULARY - 2,
        eos_token_id=_VOCABULARY - 1,
        pad_token_id=_VOCABULARY - 1,
    )
    transformers.CLIPTextModel(config).save_pretrained(directory / "text_encoder")
    file = directory / "text_encoder" / "model.safetensors"
    saved = load_file(file)
    tensors = {f"text_model.{name.removeprefix('text_model.')}": t for name, t in saved.items()}
    save_file(tensors, file, {"format": "pt"})  # named as in published files, for every reader


def _write_scheduler(directory: Path) -> None:
    import diffusers

    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.save_pretrained(directory / "scheduler")


def _write_tokenizer(folder: Path) -> None:
    """A byte-level CLIP tokenizer without merges: one id per letter, and CLIP's start and end."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    vocabulary |= {"<|startoftext|>": _VOCABULARY - 2, "<|endoftext|>": _VOCABULARY - 1}
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@click.command()
@click.argument("directory", type=LocalPath())
@click.option("--thin", is_flag=True, help="The same layers, narrow, at 128x128 pixels.")
@click.option("--plain", is_flag=True, help="Plain Stable Diffusion, without the adapter.")
def main(directory: Path, thin: bool, plain: bool) -> None:
    """Write a random checkpoint of Stable Diffusion 1.5's size into the new DIRECTORY."""
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        raise click.UsageError(
            f"{directory} cannot be made ({error.strerror}); name a directory that is not there."
        ) from None
    make_checkpoint(directory, THIN if thin else FULL, adapter=not plain)
    click.echo(f"{directory} holds {sum(f.stat().st_size for f in directory.rglob('*'))} bytes.")


if __name__ == "__main__":
    main()
