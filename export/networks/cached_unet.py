"""Feature caching across steps (DeepCache; Ma, Fang and Wang, arXiv 2312.00858): a UNet in two.

A UNet's skip connections are numbered from the outermost one. With depth N the first N are shallow:
of the way down the layers that make them are computed in every step, and of the way up the layers
that take them. What lies between, the deep part, ends in the features that the N-th layer from the
end takes. They change slowly from step to step (section 3.2 of the paper), so a step may take those
of an earlier one. N is the paper's skip branch: 1 computes least.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synfer_rt.errors import UserError
from synfer_rt.export.networks.modules import Denoiser


@dataclass(frozen=True)
class _Given:
    """What every layer is given: the embedding of time and class, the text, what AUs add."""

    embedding: Tensor
    text: Tensor
    attention: Mapping[str, Tensor] | None


@dataclass(frozen=True)
class _Layer:
    """A residual block and what follows it up to the next skip connection."""

    resnet: nn.Module | None = None
    attention: nn.Module | None = None
    downsamplers: Sequence[nn.Module] = ()
    upsamplers: Sequence[nn.Module] = ()

    def __call__(self, x: Tensor, given: _Given, size: torch.Size | None = None) -> Tensor:
        """The layer's output; `size` is the height and width to upsample to, None for twice."""
        if self.resnet is not None:
            x = self.resnet(x, given.embedding)
        if self.attention is not None:
            x = self.attention(
                x,
                encoder_hidden_states=given.text,
                cross_attention_kwargs=given.attention,
                return_dict=False,
            )[0]
        for downsample in self.downsamplers:
            x = downsample(x)
        for upsample in self.upsamplers:
            x = upsample(x, size)
        return x


class SplitUNet:
    """The forward pass of `unet`, a UNet2DConditionModel, that can take its deep part from before.

    Its blocks must be those of Stable Diffusion (checkpoint/kinds.py). `depth` is the number of
    shallow skip connections. Raises UserError unless it is at least 1 and leaves a deep part.
    """

    def __init__(self, unet: Any, depth: int) -> None:
        self._unet = unet
        self._down, self._up = list(_way_down(unet)), list(_way_up(unet))
        most = len(self._up) - 1
        if not 1 <= depth <= most:
            raise UserError(
                f"`cache_depth` must be from 1 to {most}, since this UNet has {most + 1} skip "
                f"connections, got {depth}."
            )
        self._depth = depth

    @property
    def keeps_size(self) -> bool:
        """Whether the features are as high and wide as the latents."""
        return not any(layer.downsamplers for layer in self._down[: self._depth - 1])

    def __call__(
        self,
        latents: Tensor,
        timestep: Tensor,
        given: Mapping[str, Tensor],
        features: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The UNet's output for latents [N, C, h, w], and the features [N, c, h', w'] of its deep
        part; with `features`, those of an earlier pass, the deep part is not computed.

        `given` are the Conditioner's outputs [N, ...] by name.
        """
        unet = self._unet
        if unet.config.center_input_sample:
            latents = 2 * latents - 1
        whole = 2**unet.num_upsamplers
        sized = any(length % whole != 0 for length in latents.shape[-2:])
        told = self._given(latents, timestep, given)
        x = unet.conv_in(latents)
        skips = [x]
        for layer in self._down[: self._depth - 1]:
            skips.append(x := layer(x, told))
        shallow = len(self._up) - self._depth
        if features is None:
            for layer in self._down[self._depth - 1 :]:
                skips.append(x := layer(x, told))
            if unet.mid_block is not None:
                x = unet.mid_block(
                    x,
                    told.embedding,
                    encoder_hidden_states=told.text,
                    cross_attention_kwargs=told.attention,
                )
            features = self._rise(x, self._up[:shallow], skips, told, sized)
        x = self._rise(features, self._up[shallow:], skips[: self._depth], told, sized)
        if unet.conv_norm_out is not None:
            x = unet.conv_act(unet.conv_norm_out(x))
        return unet.conv_out(x), features

    def _given(self, latents: Tensor, timestep: Tensor, given: Mapping[str, Tensor]) -> _Given:
        unet = self._unet
        embedding = unet.time_embedding(unet.get_time_embed(sample=latents, timestep=timestep))
        classes = unet.get_class_embed(sample=latents, class_labels=given.get("class_labels"))
        if classes is not None:
            joined = unet.config.class_embeddings_concat
            embedding = torch.cat([embedding, classes], -1) if joined else embedding + classes
        if unet.time_embed_act is not None:
            embedding = unet.time_embed_act(embedding)
        attention = {name: value for name, value in given.items() if name.startswith("au_")}
        return _Given(embedding, given["text"], attention or None)

    def _rise(
        self,
        x: Tensor,
        layers: Sequence[_Layer],
        skips: Sequence[Tensor],
        told: _Given,
        sized: bool,
    ) -> Tensor:
        """`x` through layers of the way up, of which the first takes the last of `skips`.

        `sized` says whether heights and widths are odd somewhere, so that doubling is not enough.
        """
        for i, layer in enumerate(layers, 1):
            size = skips[-i - 1].shape[2:] if sized and layer.upsamplers else None
            x = layer(torch.cat([x, skips[-i]], 1), told, size)
        return x


class StoringDenoiser(nn.Module):
    """The Denoiser, which also returns the features [B, 2, c, h', w'] of its UNet's deep part."""

    def __init__(self, denoiser: Denoiser, depth: int) -> None:
        super().__init__()
        self.denoiser = denoiser
        self._split = SplitUNet(denoiser.unet, depth)

    def forward(
        self,
        latents: Tensor,
        history: Tensor,
        timestep: Tensor,
        guidance: Tensor,
        coefficients: Tensor,
        *conditioning: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """next_latents, next_history, prediction, features."""
        both, given = self.denoiser.branches(latents, conditioning)
        output, features = self._split(both, timestep, given)
        step = self.denoiser.guided_step(latents, history, guidance, coefficients, output)
        return *step, features.unflatten(0, (-1, 2))


class ReusingDenoiser(nn.Module):
    """The Denoiser with `features` [B, 2, c, h', w'] of an earlier step for its deep part."""

    def __init__(self, denoiser: Denoiser, depth: int) -> None:
        super().__init__()
        self.denoiser = denoiser
        self._split = SplitUNet(denoiser.unet, depth)

    def forward(
        self,
        features: Tensor,
        latents: Tensor,
        history: Tensor,
        timestep: Tensor,
        guidance: Tensor,
        coefficients: Tensor,
        *conditioning: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """next_latents, next_history, prediction."""
        both, given = self.denoiser.branches(latents, conditioning)
        output, _ = self._split(both, timestep, given, features.flatten(0, 1))
        return self.denoiser.guided_step(latents, history, guidance, coefficients, output)


def check_depth(unet: Any, depth: int, *, free_sizes: bool) -> None:
    """Raise UserError for a depth that the UNet does not have, or whose engines cannot be built.

    In engines of free size, which `free_sizes` says they are, features must be as large as latents.
    """
    if unet.config.time_cond_proj_dim:
        raise UserError(
            "`cache_depth` is for models with two branches of guidance, and this UNet embeds "
            "guidance, as models of few steps do; leave out `cache_depth`."
        )
    if not SplitUNet(unet, depth).keeps_size and free_sizes:
        most = 1 + len(unet.down_blocks[0].resnets)
        raise UserError(
            f"`cache_depth` {depth} keeps features that are smaller than the latents, which "
            f"engines of free size cannot take; give at most {most}, or leave out `sizes`."
        )


def _way_down(unet: Any) -> Iterator[_Layer]:
    """The layers after `conv_in` that make one skip connection each."""
    for block in unet.down_blocks:
        yield from _pairs(block)
        if block.downsamplers is not None:
            yield _Layer(downsamplers=tuple(block.downsamplers))


def _way_up(unet: Any) -> Iterator[_Layer]:
    """The layers that take one skip connection each, the innermost first."""
    for block in unet.up_blocks:
        *before, last = _pairs(block)
        yield from before
        yield _Layer(last.resnet, last.attention, upsamplers=tuple(block.upsamplers or ()))


def _pairs(block: Any) -> Iterator[_Layer]:
    """A block's residual blocks, each with the attention after it, if there is any."""
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    for resnet, attention in zip(block.resnets, attentions, strict=True):
        yield _Layer(resnet, attention)
