"""What the graphs of a pipeline in ONNX compute for a checkpoint, as PyTorch modules.

A pipeline gives its UNet a text and nothing else. So AUs are zero, in both branches of guidance:
what the AU adapter then adds is constant, and part of the UNet. A UNet whose class embedding takes
the pooled text gets it as one more token, which the text encoder appends to the others and the UNet
takes off; pipelines pass tokens on unchanged. They pad the negative prompt to the length of what
the prompt became, so the text encoder takes one id more, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.checkpoint.tokenizer import PROBES
from synfer_rt.export.networks.modules import Conditioner, Denoiser, free_batch
from synfer_rt.export.onnx_pipeline.layout import TEXT_ENCODER, UNET, VAE_DECODER, VAE_ENCODER

_BATCH = 2
_POOLED = "pooled_text"


@dataclass(frozen=True)
class PipelineGraph:
    """A module, example inputs of two images by name, and the names of its outputs.

    `lengths` are the lengths of the second axis of the first input, where it is free.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    lengths: tuple[int, int] | None = None


class PipelineText(nn.Module):
    """input_ids [B, L] -> last_hidden_state [B, L, D] and pooler_output [B, D].

    With `pooled`, last_hidden_state ends in the pooled output as token L + 1. L + 1 ids are then
    cut as the tokenizer would have cut the text: if the last one is `end`, which ends a text, so is
    the last one of L.
    """

    def __init__(self, text_encoder: Any, pooled: bool, length: int, end: int) -> None:
        super().__init__()
        self.text_encoder, self.pooled = text_encoder, pooled
        self.length, self.end = length, end

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """last_hidden_state, pooler_output."""
        if self.pooled:
            # A slice would tie the graph to the length of the example.
            kept = input_ids.index_select(1, torch.arange(self.length))
            last = input_ids[:, -1]
            last = torch.where(last == self.end, last, kept[:, -1])
            input_ids = torch.cat([kept[:, :-1], last[:, None]], 1)
        encoded = self.text_encoder(input_ids=input_ids)
        text, pooled = encoded.last_hidden_state, encoded.pooler_output
        return torch.cat([text, pooled[:, None]], 1) if self.pooled else text, pooled


class PipelineUNet(nn.Module):
    """The UNet of a pipeline, with AUs at zero; the checkpoint's UNet is changed in place."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        settings, adapter = checkpoint.settings, checkpoint.adapter
        self.class_labels, self.units = settings.class_labels, checkpoint.units
        conditioner = Conditioner(
            checkpoint.text_encoder, checkpoint.unet, adapter, settings.class_labels
        ).eval()
        Denoiser(checkpoint.unet, conditioner.outputs, adapter)  # gives the UNet its attention
        self.unet = checkpoint.unet
        self.constants: tuple[str, ...] = ()
        scale, aus = float(settings.defaults["au_scale"]), torch.zeros(1, checkpoint.units)
        with torch.no_grad():
            if "au_bias" in conditioner.outputs:
                self._keep(au_bias=scale * conditioner.au_bias(aus))
            elif "au_tokens" in conditioner.outputs:
                tokens = conditioner.au_tokens(aus)
                self._keep(au_tokens=tokens, au_weight=torch.full((1,), scale))

    def _keep(self, **constants: Tensor) -> None:
        self.constants = tuple(constants)
        for name, value in constants.items():
            self.register_buffer(name, value)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        timestep_cond: Tensor | None = None,
    ) -> Tensor:
        """out_sample [B, C, h, w]."""
        batch, labels, text = sample.shape[0], None, encoder_hidden_states
        if self.class_labels:
            parts = {"aus": sample.new_zeros(1, self.units).expand(batch, -1)}
            if _POOLED in self.class_labels:
                text, parts[_POOLED] = text[:, :-1], text[:, -1]
            labels = torch.cat([parts[name] for name in self.class_labels], 1)
        given = {name: getattr(self, name) for name in self.constants}
        given = {name: x.expand(batch, *x.shape[1:]) for name, x in given.items()}
        return self.unet(
            sample,
            timestep,
            timestep_cond=timestep_cond,
            encoder_hidden_states=text,
            class_labels=labels,
            cross_attention_kwargs=given or None,
            return_dict=False,
        )[0]


class PipelineEncoder(nn.Module):
    """sample [B, 3, H, W] -> the posterior's mean and log-variance, [B, 2 C, h, w], not scaled."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae, self.shift = vae, vae.config.shift_factor or 0.0

    def forward(self, sample: Tensor) -> Tensor:
        """latent_parameters."""
        posterior = self.vae.encode(sample, return_dict=False)[0]
        return torch.cat([posterior.mean - self.shift, posterior.logvar], 1)


class PipelineDecoder(nn.Module):
    """latent_sample [B, C, h, w], no longer scaled -> sample [B, 3, H, W]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae, self.shift = vae, vae.config.shift_factor or 0.0
        free_batch(vae)

    def forward(self, latent_sample: Tensor) -> Tensor:
        """sample."""
        return self.vae.decode(latent_sample + self.shift, return_dict=False)[0]


def graphs_of(checkpoint: Checkpoint) -> dict[str, PipelineGraph]:
    """The pipeline's graphs of a checkpoint, by their folders."""
    draw = torch.Generator().manual_seed(0)
    pooled = _POOLED in checkpoint.settings.class_labels
    positions = checkpoint.text_encoder.config.max_position_embeddings
    max_length = min(int(checkpoint.tokenizer.model_max_length), positions)
    options = {"padding": "max_length", "truncation": True, "max_length": max_length}
    ids = torch.tensor(checkpoint.tokenizer(list(PROBES[1 : 1 + _BATCH]), **options)["input_ids"])
    end = checkpoint.tokenizer.eos_token_id
    text = PipelineText(checkpoint.text_encoder, pooled, max_length, end).eval()
    lengths = (max_length, max_length + 1) if pooled else None
    with torch.no_grad():
        encoded, _ = text(ids)
    latents = torch.randn(_BATCH, *checkpoint.latent_shape, generator=draw)
    timestep = torch.tensor(checkpoint.schedule["num_train_timesteps"] / 2)
    unet = {"sample": latents, "timestep": timestep, "encoder_hidden_states": encoded}
    if width := checkpoint.unet.config.time_cond_proj_dim:
        unet["timestep_cond"] = torch.randn(_BATCH, width, generator=draw)
    images = 2 * torch.rand(_BATCH, 3, *checkpoint.image_size, generator=draw) - 1
    return {
        TEXT_ENCODER: PipelineGraph(
            text, {"input_ids": ids}, ("last_hidden_state", "pooler_output"), lengths
        ),
        UNET: PipelineGraph(PipelineUNet(checkpoint).eval(), unet, ("out_sample",)),
        VAE_ENCODER: PipelineGraph(
            PipelineEncoder(checkpoint.vae).eval(), {"sample": images}, ("latent_parameters",)
        ),
        VAE_DECODER: PipelineGraph(
            PipelineDecoder(checkpoint.vae).eval(), {"latent_sample": latents}, ("sample",)
        ),
    }
