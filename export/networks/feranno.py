"""FERAnno, the label calibrator: it reads an expression from the denoiser itself.

Finished latents are diffused to t = 1 and pass once through the UNet; its features at several
scales and its cross-attention maps go through two encoder branches, a bidirectional
cross-attention block and a linear head (He et al., SynFER, arXiv 2410.09865, section 3.4).

Every image is read with the same prompt, which names all classes, and with zero AUs: FERAnno
is never told the requested label, and each class has attention maps of its own words. No noise is
drawn for t = 1: the UNet sees the expected value, so a label depends on its latents alone. A UNet
that embeds guidance is always read at the same scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synfer_rt.export.networks.modules import Denoiser, cross_attentions
from synfer_rt.vocabulary import label_schemes

TIMESTEP = 1
_FINEST = 16
"""Pixels along the longer side of the grid that all scales are brought to, at most."""


class Residual(nn.Module):
    """Two 3x3 convolutions of [B, width, g, g'] beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(1, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        return x + self.body(x)


class Branch(nn.Module):
    """Maps [B, c_i, h_i, w_i] of several scales -> tokens [B, g * g', width].

    `shapes` are those of the maps of one image, (c_i, h_i, w_i).
    """

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], width: int, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        self.grid = grid
        # Each channel in its own unit: attention maps differ little around large means.
        self.norms = nn.ModuleList(nn.BatchNorm2d(c, affine=False) for c, *_ in shapes)
        # A finer map's details within a cell of the grid stay apart: averaged, they would be lost.
        cells = [(max(1, h // grid[0]), max(1, w // grid[1])) for _, h, w in shapes]
        self.enter = nn.ModuleList(
            nn.Conv2d(shape[0], width, cell, cell)
            for shape, cell in zip(shapes, cells, strict=True)
        )
        self.block = Residual(width)
        self.place = nn.Parameter(torch.zeros(width, *grid))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The tokens."""
        x = self.place
        for norm, enter, part in zip(self.norms, self.enter, maps, strict=True):
            entered = enter(norm(part))
            if entered.shape[2:] != self.grid:
                entered = F.interpolate(entered, size=self.grid)
            x = x + entered
        return self.block(x / len(maps) ** 0.5).flatten(2).transpose(1, 2)


class CrossAttention(nn.Module):
    """Tokens [B, n, width] that look at others [B, m, width], then a feed-forward layer."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_context = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        """The tokens, changed."""
        query = self.query(self.norm_query(tokens))
        key, value = self.key_value(self.norm_context(context)).chunk(2, -1)
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value)
        )
        found = F.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.out(found.transpose(1, 2).flatten(2))
        return tokens + self.feed(tokens)


class AnnotatorHead(nn.Module):
    """UNet features and cross-attention maps -> logits [B, classes]; all that is trained.

    `features` and `maps` are the shapes (c_i, h_i, w_i) of one image's.
    """

    def __init__(
        self,
        features: Sequence[tuple[int, ...]],
        maps: Sequence[tuple[int, ...]],
        grid: tuple[int, int],
        classes: int,
        width: int,
    ) -> None:
        super().__init__()
        self.features, self.maps = Branch(features, width, grid), Branch(maps, width, grid)
        self.to_maps, self.to_features = CrossAttention(width), CrossAttention(width)
        self.norm = nn.LayerNorm(2 * width)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * width * math.prod(grid), classes))

    def forward(self, features: Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
        """The logits."""
        seen, attended = self.features(features), self.maps(maps)
        both = self.to_maps(seen, attended), self.to_features(attended, seen)
        # The linear layer sees where each token lies: a mouth's corner is not a brow's.
        return self.head(self.norm(torch.cat(both, -1)).flatten(1))


class FERAnno(nn.Module):
    """Finished, scaled latents [B, C, h, w] -> class probabilities [B, classes].

    `conditioning` holds the fixed prompt's tensors [1, ...] by the conditioner's names, of which
    `tokens` are no padding; `signal` is sqrt(alpha_bar) at t = 1 and `latent` is [C, h, w].
    """

    def __init__(
        self,
        denoiser: Denoiser,
        conditioning: Mapping[str, Tensor],
        tokens: int,
        signal: float,
        latent: tuple[int, int, int],
        label_scheme: str,
        width: int,
    ) -> None:
        super().__init__()
        self.denoiser, self.tokens, self.signal = denoiser, tokens, signal
        self.latent = latent
        for name, tensor in conditioning.items():
            self.register_buffer(f"fixed_{name}", tensor)
        with torch.no_grad():
            features, maps = self.read(torch.zeros(1, *latent))
        # The finest scale that has attention: finer ones are averaged down to it.
        grid = max((tuple(part.shape[2:]) for part in maps), key=math.prod)
        factor = max(1, max(grid) // _FINEST)
        self.head = AnnotatorHead(
            [tuple(part.shape[1:]) for part in features],
            [tuple(part.shape[1:]) for part in maps],
            (grid[0] // factor, grid[1] // factor),
            len(label_schemes.scheme(label_scheme)),
            width,
        )

    def read(self, latents: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The UNet's features [B, c_i, h_i, w_i], coarse to fine, and its cross-attention maps.

        Features are those after the middle block and after each decoder block; maps have a channel
        for each head and token, one [B, heads * tokens, h_i, w_i] a layer.
        """
        count = latents.shape[0]
        fixed = {name: getattr(self, f"fixed_{name}") for name in self.denoiser.names}
        fixed = {name: x.expand(count, *x.shape[1:]) for name, x in fixed.items()}
        with _recorded(self.denoiser.unet, tuple(latents.shape[2:]), self.tokens) as (parts, maps):
            timestep = torch.full((), float(TIMESTEP), device=latents.device)
            self.denoiser.predict(self.signal * latents, timestep, fixed)
        return parts, maps

    def logits(self, latents: Tensor) -> Tensor:
        """Before the softmax."""
        return self.head(*self.read(latents))

    def forward(self, latents: Tensor) -> Tensor:
        """The probabilities."""
        return self.logits(latents).softmax(-1)


@contextmanager
def _recorded(
    unet: Any, size: tuple[int, ...], tokens: int
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Lists that fill with features and maps while the UNet runs on latents of `size`."""
    features: list[Tensor] = []
    maps: list[Tensor] = []

    def keep_output(module: nn.Module, inputs: Any, output: Tensor) -> None:
        features.append(output)

    def keep_map(attention: Any, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> None:
        # Beside the attention, whose processor may be any: the same query and key once more.
        hidden, text = inputs[0], options["encoder_hidden_states"][:, :tokens]
        query, key = (
            layer(x).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for layer, x in ((attention.to_q, hidden), (attention.to_k, text))
        )
        weights = (query @ key.transpose(2, 3) * attention.scale).softmax(-1)
        reduction = math.isqrt(size[0] * size[1] // hidden.shape[1])
        there = size[0] // reduction, size[1] // reduction
        maps.append(weights.transpose(2, 3).flatten(1, 2).unflatten(2, there))

    blocks = [unet.mid_block] if unet.mid_block is not None else []
    handles = [b.register_forward_hook(keep_output) for b in [*blocks, *unet.up_blocks]]
    handles += [
        layer.register_forward_pre_hook(keep_map, with_kwargs=True)
        for layer in cross_attentions(unet).values()
    ]
    try:
        yield features, maps
    finally:
        for handle in handles:
            handle.remove()
