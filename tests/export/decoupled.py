"""SynFER's decoupled attention as its formula reads, with real attention over the AU token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


class DecoupledAttention(torch.nn.Module):
    """out = W_out [Attn(q, k_text, v_text) + scale * Attn(q, k_au, v_au)] + b_out.

    `token` [N, 1, D] and `scale` [N] are set before a forward of the UNet.
    """

    token: torch.Tensor
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
        aus = attend(q, self.token @ self.to_k.T, self.token @ self.to_v.T)
        return attn.to_out[0](text + self.scale[:, None, None] * aus)


class DecoupledUNet:
    """A UNet of diffusers with DecoupledAttention from an adapter file."""

    def __init__(self, unet: Any, adapter: Path) -> None:
        self.unet, self.adapter = unet, load_file(adapter)
        processors = dict(unet.attn_processors)
        self.layers = []
        for i, name in enumerate(processors):
            if f"ip_adapter.{i}.to_k_ip.weight" in self.adapter:
                k, v = (self.adapter[f"ip_adapter.{i}.to_{kind}_ip.weight"] for kind in "kv")
                processors[name] = DecoupledAttention(k, v)
                self.layers.append(processors[name])
        unet.set_attn_processor(processors)

    def __call__(
        self,
        latents: torch.Tensor,
        timestep: Any,
        text: torch.Tensor,
        aus: torch.Tensor,
        au_scale: torch.Tensor,
        class_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        weight, bias = (self.adapter[f"image_proj.proj.{part}"] for part in ("weight", "bias"))
        for layer in self.layers:
            layer.token, layer.scale = (aus @ weight.T + bias)[:, None], au_scale
        return self.unet(latents, timestep, text, class_labels=class_labels).sample
