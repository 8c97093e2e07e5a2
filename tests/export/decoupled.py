"""AU adapters as their formulas read, with real attention over every AU token.

Nothing here knows how the export reads or folds an adapter: the files are opened by their names,
and the papers' equations are written out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

Tokens = Callable[[torch.Tensor], torch.Tensor]
"""AUs in [0, 1], [N, A] -> tokens [N, T, D]."""


class DecoupledAttention(torch.nn.Module):
    """out = W_out [Attn(q, k_text, v_text) + scale * Attn(q, k_au, v_au)] + b_out.

    `tokens` [N, T, D] and `scale` [N] are set before a forward of the UNet.
    """

    tokens: torch.Tensor
    scale: torch.Tensor

    def __init__(self, to_k: torch.Tensor, to_v: torch.Tensor) -> None:
        super().__init__()
        self.to_k, self.to_v = to_k, to_v

    def forward(self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states=None, **_):
        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            weights = (heads(q) @ heads(k).transpose(2, 3) / heads(q).shape[-1] ** 0.5).softmax(-1)
            return (weights @ heads(v)).transpose(1, 2).flatten(2)

        q = attn.to_q(hidden_states)
        k, v = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        text = attend(q, k, v)
        aus = attend(q, self.tokens @ self.to_k.T, self.tokens @ self.to_v.T)
        return attn.to_out[0](text + self.scale[:, None, None] * aus)


class Decoupled:
    """An adapter on a UNet of diffusers, whose cross-attentions it replaces by `layers`."""

    def __init__(self, unet: Any, tokens: Tokens, weights: dict[str, torch.Tensor]) -> None:
        """`weights` are `<processor>.k` and `<processor>.v`, [width, D]."""
        self.tokens = tokens
        processors = dict(unet.attn_processors)
        self.layers = []
        for name in processors:
            if f"{name}.k" in weights:
                processors[name] = DecoupledAttention(weights[f"{name}.k"], weights[f"{name}.v"])
                self.layers.append(processors[name])
        unet.set_attn_processor(processors)

    def condition(self, aus: torch.Tensor, scale: torch.Tensor) -> None:
        """Set the AUs [N, A] and the AU scale [N] of the UNet's next forwards."""
        for layer in self.layers:
            layer.tokens, layer.scale = self.tokens(aus), scale


def synfer(unet: Any, path: Path) -> Decoupled:
    """SynFER's layout: tokens = [LayerNorm] (W a + b), in rows of the text encoder's width."""
    file = load_file(path)
    width = unet.config.cross_attention_dim
    weight, bias = (file[f"image_proj.proj.{part}"] for part in ("weight", "bias"))

    def tokens(aus: torch.Tensor) -> torch.Tensor:
        rows = (aus @ weight.T + bias).view(len(aus), -1, width)
        if "image_proj.norm.weight" not in file:
            return rows
        mean, variance = rows.mean(-1, keepdim=True), rows.var(-1, correction=0, keepdim=True)
        standard = (rows - mean) / (variance + 1e-5).sqrt()
        return standard * file["image_proj.norm.weight"] + file["image_proj.norm.bias"]

    weights = {
        f"{name}.{kind}": file[key]
        for i, name in enumerate(unet.attn_processors)
        for kind in "kv"
        if (key := f"ip_adapter.{i}.to_{kind}_ip.weight") in file
    }
    return Decoupled(unet, tokens, weights)


def fineface(unet: Any, directory: Path) -> Decoupled:
    """FineFace: token = [a, W a + b, zeros], its AUs a from 0 to 5."""
    encoder = torch.load(directory / "au_encoder.ckpt", weights_only=True)
    attention = torch.load(directory / "attn_processors.ckpt", weights_only=True)
    weight, bias = encoder["au_encoder.weight"], encoder["au_encoder.bias"]

    def tokens(aus: torch.Tensor) -> torch.Tensor:
        intensities = 5 * aus
        known = torch.cat([intensities, intensities @ weight.T + bias], 1)
        rest = torch.zeros(len(aus), unet.config.cross_attention_dim - known.shape[1])
        return torch.cat([known, rest], 1)[:, None]

    weights = {
        f"{name}.{kind}": attention[f"{name}.au_to_{kind}.weight"]
        for name in unet.attn_processors
        for kind in "kv"
        if f"{name}.au_to_k.weight" in attention
    }
    return Decoupled(unet, tokens, weights)


class DecoupledUNet:
    """A UNet of diffusers with an adapter file of SynFER's layout."""

    def __init__(self, unet: Any, adapter: Path) -> None:
        self.unet, self.adapter = unet, synfer(unet, adapter)
        self.layers = self.adapter.layers

    def __call__(
        self,
        latents: torch.Tensor,
        timestep: Any,
        text: torch.Tensor,
        aus: torch.Tensor,
        au_scale: torch.Tensor,
        class_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self.adapter.condition(aus, au_scale)
        return self.unet(latents, timestep, text, class_labels=class_labels).sample
