"""The layout of a pipeline in ONNX, which `optimum-cli export onnx` writes and its pipelines read.

    model_index.json, scheduler/, tokenizer/     as in diffusers' own layout
    text_encoder/    input_ids [B, L] -> last_hidden_state [B, L, D], pooler_output [B, D]
    unet/            sample [B, C, h, w], timestep [], encoder_hidden_states [B, L, D] -> out_sample
                     and timestep_cond [B, width], of a UNet that embeds guidance
    vae_encoder/     sample [B, 3, H, W] in [-1, 1] -> latent_parameters [B, 2 C, h, w]
    vae_decoder/     latent_sample [B, C, h, w] -> sample [B, 3, H, W] in [-1, 1]

Each of the four has a graph, model.onnx, and the network's config.json. The pipeline scales latents
itself, by the `scaling_factor` of vae_decoder/config.json.

What else a checkpoint of synfer-rt holds (checkpoint/contents.py) may lie beside these folders
under its own names, where pipelines pass over it.
"""

from __future__ import annotations

from pathlib import Path

from synfer_rt.export.checkpoint.contents import (
    ADAPTER_FILES,
    ADDITIONS,
    AU_READER_FILE,
    LAYOUTS_FILE,
)
from synfer_rt.export.checkpoint.settings import SETTINGS_FILE

GRAPH = "model.onnx"
CONFIG = "config.json"
TEXT_ENCODER, UNET = "text_encoder", "unet"
VAE_ENCODER, VAE_DECODER = "vae_encoder", "vae_decoder"
GRAPHS = (TEXT_ENCODER, UNET, VAE_ENCODER, VAE_DECODER)
PART_OF = {TEXT_ENCODER: "text_encoder", UNET: "unet", VAE_ENCODER: "vae", VAE_DECODER: "vae"}
"""The folder of a checkpoint whose network each graph computes."""
BESIDE = (
    *(SETTINGS_FILE, LAYOUTS_FILE, AU_READER_FILE, "au_reader.json", "classifiers", "README.md"),
    *ADDITIONS,
)
"""What a checkpoint holds that no pipeline reads, but for the AU adapter."""
ADAPTERS = (*ADAPTER_FILES, "au_adapter.json")


def is_onnx_pipeline(directory: Path) -> bool:
    """Whether a directory holds a pipeline in ONNX, whole or in part, and no checkpoint."""
    graphs = [directory / UNET / GRAPH, directory / "transformer" / GRAPH]
    some = (directory / VAE_DECODER).is_dir() or any(graph.is_file() for graph in graphs)
    return some and not (directory / "vae").is_dir()
