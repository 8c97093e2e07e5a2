"""The four PyTorch modules that become engines; shapes are those of docs/architecture.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from .adapter import AUAdapter


class AUBiasAttention(AttnProcessor2_0):
    """Attention whose output gains its layer's slice of the AU bias [N, 1, width].

    With one AU token, decoupled attention (He et al., arXiv 2410.09865) adds `softmax over one
    key` = 1 times that token's value, at every position: a bias. `span` is None for a layer that
    has no AU token.
    """

    def __init__(self, span: slice | None) -> None:
        super().__init__()
        self.span = span

    def __call__(  # type: ignore[override]
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        au_bias: Tensor | None = None,
    ) -> Tensor:
        """Attention of diffusers, then the bias; arguments as diffusers passes them."""
        out = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if self.span is None or au_bias is None:
            return out
        return out + au_bias[:, None, self.span] / attn.rescale_output_factor


def _upsample(self: Any, hidden_states: Tensor, output_size: list[int] | None = None):
    # The original forward tests the batch and the element count, which fixes the batch on export.
    if self.use_conv_transpose:
        return self.conv(hidden_states)
    if self.interpolate:
        size = tuple(output_size) if output_size is not None else None
        factor = 2.0 if output_size is None else None
        hidden_states = F.interpolate(hidden_states, size=size, scale_factor=factor)
    conv = self.conv if self.name == "conv" else self.Conv2d_0
    return conv(hidden_states) if self.use_conv else hidden_states


def free_batch(module: nn.Module) -> None:
    """Replace, in place, the forwards of diffusers that would fix the batch on export."""
    for part in module.modules():
        if isinstance(part, Upsample2D) and part.norm is None:
            part.forward = MethodType(_upsample, part)


def cross_attentions(unet: Any) -> dict[int, Any]:
    """The UNet's cross-attention layers by their index in `unet.attn_processors`."""
    layers = [unet.get_submodule(n.removesuffix(".processor")) for n in unet.attn_processors]
    return {
        i: layer
        for i, layer in enumerate(layers)
        if isinstance(layer, Attention) and layer.is_cross_attention
    }


def fold(adapter: AUAdapter, unet: Any) -> nn.Linear:
    """The adapter as one linear layer, AU vector [..., A] -> au_bias [..., sum of widths].

    Per cross-attention layer `W_out W_v (W aus + b)`, the product taken in float64; the bias of
    `to_out` stays in the UNet, where the text branch already adds it.
    """
    value = torch.cat(
        [
            layer.to_out[0].weight.double() @ adapter.to_v[i].double()
            for i, layer in cross_attentions(unet).items()
        ]
    )
    linear = nn.Linear(adapter.units, len(value))
    linear.weight.data = (value @ adapter.proj_weight.double()).float()
    linear.bias.data = (value @ adapter.proj_bias.double()).float()
    return linear


class Conditioner(nn.Module):
    """tokens [B, 2, L] (and aus [B, 2, A], au_scale [B]) -> what stays constant over the steps.

    Outputs, in the order of `outputs`: `text` [B, 2, L, D]; with an adapter `au_bias`
    [B, 2, sum of widths], `au_scale * W_out W_v (W aus + b)` of every cross-attention layer; with
    class labels `class_labels` [B, 2, sum], the parts named by `class_labels` joined.
    """

    def __init__(
        self,
        text_encoder: Any,
        unet: Any,
        adapter: AUAdapter | None,
        class_labels: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.class_labels = tuple(class_labels)
        self.outputs = ("text",)
        if adapter is not None:
            self.outputs += ("au_bias",)
            self.au_bias = fold(adapter, unet)
        if class_labels:
            self.outputs += ("class_labels",)
        self.takes_aus = adapter is not None or "aus" in class_labels

    def forward(
        self, tokens: Tensor, aus: Tensor | None = None, au_scale: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The tensors named in `outputs`."""
        encoded = self.text_encoder(input_ids=tokens.flatten(0, 1))
        results = [encoded.last_hidden_state.unflatten(0, (-1, 2))]
        parts = {"pooled_text": encoded.pooler_output.unflatten(0, (-1, 2))}
        if aus is not None and au_scale is not None:
            scale = au_scale[:, None, None]
            parts["aus"] = scale * aus
            if "au_bias" in self.outputs:
                results.append(scale * self.au_bias(aus))
        if self.class_labels:
            results.append(torch.cat([parts[name] for name in self.class_labels], -1))
        return tuple(results)


class Denoiser(nn.Module):
    """One solver step with guidance: the UNet on both branches, then `coefficients @ stack`.

    `conditioning` are the Conditioner's outputs in the order of `conditioning_names`. The stack is
    [latents, prediction, history]; its first result row are the next latents, the rest the next
    history. Guidance is `u + guidance * (c - u)` (Ho and Salimans, arXiv 2207.12598).
    """

    def __init__(self, unet: Any, conditioning_names: Sequence[str]) -> None:
        super().__init__()
        self.unet = unet
        self.names = tuple(conditioning_names)
        spans: dict[int, slice] = {}
        start = 0
        for i, layer in cross_attentions(unet).items():
            spans[i] = slice(start, start + layer.to_out[0].out_features)
            start = spans[i].stop
        if "au_bias" in self.names:
            processors = {
                name: AUBiasAttention(spans.get(i)) for i, name in enumerate(unet.attn_processors)
            }
            unet.set_attn_processor(processors)
        free_batch(unet)

    def forward(
        self,
        latents: Tensor,
        history: Tensor,
        timestep: Tensor,
        guidance: Tensor,
        coefficients: Tensor,
        *conditioning: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """next_latents, next_history, prediction."""
        given = dict(zip(self.names, (c.flatten(0, 1) for c in conditioning), strict=True))
        both = latents.unsqueeze(1).expand(-1, 2, -1, -1, -1).flatten(0, 1)
        kwargs = {"au_bias": given["au_bias"]} if "au_bias" in given else None
        output = self.unet(
            both,
            timestep,
            encoder_hidden_states=given["text"],
            class_labels=given.get("class_labels"),
            cross_attention_kwargs=kwargs,
            return_dict=False,
        )[0].unflatten(0, (-1, 2))
        unconditional, conditional = output[:, 0], output[:, 1]
        weight = guidance[:, None, None, None]
        prediction = unconditional + weight * (conditional - unconditional)
        stack = torch.cat([latents.unsqueeze(1), prediction.unsqueeze(1), history], 1)
        rows = (coefficients @ stack.flatten(2)).unflatten(2, latents.shape[1:])
        return rows[:, 0], rows[:, 1:], prediction


class Decoder(nn.Module):
    """Scaled latents [B, C, h, w] -> images [B, 3, H, W] in [0, 1]."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.scale = vae.config.scaling_factor
        self.shift = vae.config.shift_factor or 0.0
        free_batch(vae)

    def forward(self, latents: Tensor) -> Tensor:
        """The images."""
        images = self.vae.decode(latents / self.scale + self.shift, return_dict=False)[0]
        return (images / 2 + 0.5).clamp(0, 1)


class Encoder(nn.Module):
    """Images [B, 3, H, W] in [0, 1] -> mean and log-variance [B, C, h, w] of scaled latents."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.scale = vae.config.scaling_factor
        self.shift = vae.config.shift_factor or 0.0

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """mean, logvar."""
        posterior = self.vae.encode(images * 2 - 1, return_dict=False)[0]
        logvar = posterior.logvar + 2 * math.log(self.scale)
        return (posterior.mean - self.shift) * self.scale, logvar
