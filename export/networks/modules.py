"""The PyTorch modules of the engines that every bundle has, with one more for its encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from synfer_rt.export.files.au_adapter import AUAdapter, CrossAttention

EMBEDDED_GUIDANCE = 8.5
"""The scale at which a UNet that embeds guidance is read where no request names one, and the
default of requests: that of diffusers' pipeline for such models, whose training used 3 to 15."""


class AUBiasAttention(AttnProcessor2_0):
    """Attention whose output gains its layer's slice of the AU bias [N, 1, width].

    With one AU token, decoupled attention (He et al., arXiv 2410.09865) adds the token's value
    times a softmax over one key, which is 1, at every position: a bias. `span` is None for a layer
    without an AU token.
    """

    def __init__(self, span: slice | None) -> None:
        super().__init__()
        self.span = span

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        au_bias: Tensor | None = None,
    ) -> Tensor:
        """The attention of diffusers, then the bias; arguments as diffusers passes them."""
        out = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if self.span is None or au_bias is None:
            return out
        return out + au_bias[:, None, self.span] / attn.rescale_output_factor


class AUTokenAttention(nn.Module):
    """Decoupled cross-attention over text and several AU tokens (arXiv 2410.09865).

    `W_out [Attn(q, k_text, v_text) + au_weight * Attn(q, k_au, v_au)] + b_out`, with `au_tokens`
    [N, T, D] and `au_weight` [N].
    """

    def __init__(self, to_k: Tensor, to_v: Tensor) -> None:
        super().__init__()
        self.to_k = nn.Parameter(to_k, requires_grad=False)
        self.to_v = nn.Parameter(to_v, requires_grad=False)

    # diffusers reads from this signature which arguments a processor takes.
    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        au_tokens: Tensor | None = None,
        au_weight: Tensor | None = None,
    ) -> Tensor:
        """The layer's output [N, positions, width]; arguments as diffusers passes them."""
        assert au_tokens is not None and au_weight is not None
        query = _heads(attn.to_q(hidden_states), attn.heads)
        keys, values = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        text = _attend(query, keys, values, attn.heads)
        keys, values = F.linear(au_tokens, self.to_k), F.linear(au_tokens, self.to_v)
        aus = _attend(query, keys, values, attn.heads)
        return attn.to_out[0](text + au_weight[:, None, None] * aus)


class PlainAttention(AttnProcessor2_0):
    """The attention of diffusers, for layers that ignore the AU tokens of the other layers."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        au_tokens: Tensor | None = None,
        au_weight: Tensor | None = None,
    ) -> Tensor:
        """The attention of diffusers; arguments as diffusers passes them."""
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


def _heads(x: Tensor, heads: int) -> Tensor:
    """[N, positions, width] -> [N, heads, positions, width / heads]."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _attend(query: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    mixed = F.scaled_dot_product_attention(query, _heads(keys, heads), _heads(values, heads))
    return mixed.transpose(1, 2).flatten(2)


def _upsample(self: Any, hidden_states: Tensor, output_size: list[int] | None = None):
    # The original forward tests the batch and the element count, which would fix the batch.
    if self.use_conv_transpose:
        return self.conv(hidden_states)
    if self.interpolate:
        size = tuple(output_size) if output_size is not None else None
        factor = 2.0 if output_size is None else None
        hidden_states = F.interpolate(hidden_states, size=size, scale_factor=factor)
    conv = self.conv if self.name == "conv" else self.Conv2d_0
    return conv(hidden_states) if self.use_conv else hidden_states


def free_batch(module: nn.Module) -> None:
    """Replace, in place, the forwards of diffusers that would fix the batch in an export."""
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


def adapter_layers(unet: Any) -> tuple[CrossAttention, ...]:
    """The layers of the UNet that an AU adapter acts on, in the order of `unet.attn_processors`."""
    names = list(unet.attn_processors)
    return tuple(
        CrossAttention(i, names[i], layer.inner_dim) for i, layer in cross_attentions(unet).items()
    )


def fold(adapter: AUAdapter, unet: Any) -> nn.Module:
    """An adapter of one token as a module: AU vector [..., A] -> au_bias [..., sum of widths].

    For each cross-attention layer, `W_out W_v token`, with the matrix product in float64; the bias
    of `to_out` stays in the UNet, where the text branch already adds it. An affine projection is
    folded in too, so that the module is one linear layer.
    """
    value = torch.cat(
        [
            layer.to_out[0].weight.double() @ adapter.to_v[i].double()
            for i, layer in cross_attentions(unet).items()
        ]
    )
    projection = adapter.projection.affine
    if projection is None:
        return nn.Sequential(adapter.projection, nn.Flatten(-2), _linear(value, None))
    weight, bias = projection.weight.double(), projection.bias.double()
    return _linear(value @ weight, value @ bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.float(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.float(), requires_grad=False)
    return linear


class Conditioner(nn.Module):
    """tokens [B, 2, L] (and aus [B, 2, A], au_scale [B]) -> the conditioning, constant over steps.

    Outputs, in the order of `outputs`: `text` [B, 2, L, D]; with an adapter of one token `au_bias`
    [B, 2, sum of widths], `au_scale * W_out W_v token` of every cross-attention layer; with an
    adapter of several tokens `au_tokens` [B, 2, T, D] and `au_weight` [B, 2], which is au_scale;
    with class labels `class_labels` [B, 2, sum], the named parts joined. AUs are in [0, 1] and are
    multiplied by the adapter's maximum.
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
        self.maximum = 1.0
        if adapter is not None:
            self.maximum = adapter.maximum
            if adapter.tokens == 1:
                self.outputs += ("au_bias",)
                self.au_bias = fold(adapter, unet)
            else:
                self.outputs += ("au_tokens", "au_weight")
                self.au_tokens = adapter.projection
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
            if self.maximum != 1:
                aus = self.maximum * aus
            scale = au_scale[:, None, None]
            parts["aus"] = scale * aus
            if "au_bias" in self.outputs:
                results.append(scale * self.au_bias(aus))
            elif "au_tokens" in self.outputs:
                results += [self.au_tokens(aus), au_scale[:, None].repeat(1, 2)]
        if self.class_labels:
            results.append(torch.cat([parts[name] for name in self.class_labels], -1))
        return tuple(results)


class Denoiser(nn.Module):
    """One solver step with guidance: the UNet on both branches, then `coefficients @ stack`.

    `conditioning` are the Conditioner's outputs in the order of `conditioning_names`; `adapter` is
    the Conditioner's, and is needed for `au_tokens`. The UNet is changed in place. The stack is
    [latents, prediction, history]; the first row of the product is next_latents, the other rows are
    next_history. Guidance is `u + guidance * (c - u)` (Ho and Salimans, arXiv 2207.12598). A UNet
    that embeds guidance (`embeds_guidance`) has no branches; GuidanceEmbeddingDenoiser is its step.
    """

    def __init__(
        self, unet: Any, conditioning_names: Sequence[str], adapter: AUAdapter | None = None
    ) -> None:
        super().__init__()
        self.unet = unet
        self.names = tuple(conditioning_names)
        layers = cross_attentions(unet)
        spans: dict[int, slice] = {}
        start = 0
        for i, layer in layers.items():
            spans[i] = slice(start, start + layer.to_out[0].out_features)
            start = spans[i].stop
        processors: dict[str, Any] = {}
        for i, name in enumerate(unet.attn_processors):
            if "au_bias" in self.names:
                processors[name] = AUBiasAttention(spans.get(i))
            elif "au_tokens" in self.names and i in layers:
                if adapter is None:
                    raise ValueError("au_tokens need the adapter that they are made by")
                processors[name] = AUTokenAttention(adapter.to_k[i], adapter.to_v[i])
            else:
                processors[name] = PlainAttention()
        unet.set_attn_processor(processors)
        free_batch(unet)
        width = unet.config.time_cond_proj_dim
        self.embeds_guidance = bool(width)
        if width:
            self.guidance_embedding = GuidanceEmbedding(width)

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
        both, given = self.branches(latents, conditioning)
        output = self.predict(both, timestep, given)
        return self.guided_step(latents, history, guidance, coefficients, output)

    def branches(
        self, latents: Tensor, conditioning: Sequence[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Latents and conditioning by name of both guidance branches in turn, [2B, ...]."""
        given = dict(zip(self.names, (c.flatten(0, 1) for c in conditioning), strict=True))
        return latents.unsqueeze(1).expand(-1, 2, -1, -1, -1).flatten(0, 1), given

    def guided_step(
        self,
        latents: Tensor,
        history: Tensor,
        guidance: Tensor,
        coefficients: Tensor,
        output: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """next_latents, next_history, prediction, given the UNet's output [2B, C, h, w]."""
        output = output.unflatten(0, (-1, 2))
        unconditional, conditional = output[:, 0], output[:, 1]
        weight = guidance[:, None, None, None]
        prediction = unconditional + weight * (conditional - unconditional)
        return *solver_step(latents, prediction, history, coefficients), prediction

    def predict(
        self,
        latents: Tensor,
        timestep: Tensor,
        given: Mapping[str, Tensor],
        guidance: Tensor | None = None,
    ) -> Tensor:
        """The UNet's output for latents [N, C, h, w], with the conditioning [N, ...] by name.

        `guidance` [N] is for a UNet that embeds it, None for EMBEDDED_GUIDANCE.
        """
        kwargs = {name: value for name, value in given.items() if name.startswith("au_")}
        embedded = None
        if self.embeds_guidance:
            if guidance is None:
                guidance = torch.full((1,), EMBEDDED_GUIDANCE, device=latents.device)
            embedded = self.guidance_embedding(guidance)
        return self.unet(
            latents,
            timestep,
            timestep_cond=embedded,
            encoder_hidden_states=given["text"],
            class_labels=given.get("class_labels"),
            cross_attention_kwargs=kwargs or None,
            return_dict=False,
        )[0]


class GuidanceEmbedding(nn.Module):
    """Scales of guidance [N] -> the UNet's `timestep_cond` [N, width].

    They are the sines, then the cosines, of 1000 * (scale - 1) times geometrically falling
    frequencies: scale - 1 is the w of Luo et al. (Latent Consistency Models, arXiv 2310.04378),
    embedded as a timestep of 1000 * w is in diffusers' pipeline. An odd width ends in a zero.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        step = torch.log(torch.tensor(10000.0)) / (half - 1)
        frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -step)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.odd = width % 2

    def forward(self, guidance: Tensor) -> Tensor:
        """The embedding."""
        angles = (1000.0 * (guidance - 1))[:, None] * self.frequencies
        return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, self.odd))


def solver_step(
    latents: Tensor, prediction: Tensor, history: Tensor, coefficients: Tensor
) -> tuple[Tensor, Tensor]:
    """`coefficients @ [latents, prediction, history]`: next_latents and next_history."""
    stack = torch.cat([latents.unsqueeze(1), prediction.unsqueeze(1), history], 1)
    rows = (coefficients @ stack.flatten(2)).unflatten(2, latents.shape[1:])
    return rows[:, 0], rows[:, 1:]


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
