"""Architectures of expression classifiers with random weights, as users bring them.

Those of transformers are built from its own configurations; MobileNetV3 (Howard et al.,
arXiv 1905.02244, table 2) and a network of two streams like POSTER (Zheng et al., arXiv 2204.04083)
are written here. Weights are drawn so that signals and gradients keep their size through all
layers. Batch normalisation has the statistics of images like those that are moved; with those of
others, signals would grow from layer to layer. Its biases are around _BIAS, so that most units are
on; at 0 a random network makes every difference between two inputs, and so every rounding error,
larger from layer to layer (Yang et al., arXiv 1902.08129), which a trained one does not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from synfer_rt.vocabulary import label_schemes

SCHEME = "affectnet-8"
NAMES = label_schemes.scheme(SCHEME)


@dataclass(frozen=True)
class Architecture:
    """A network for square images of `size` pixels; `note` says how it differs from the published.

    `kind` is the name in transformers, None for a network that is not in it, and `processor` the
    name of its image processor there.
    """

    size: int
    build: Callable[[], nn.Module]
    note: str
    kind: str | None = None
    processor: str = "ViT"


_STATISTICS, _BATCH, _EDGE, _DEVIATION = 3, 16, 64, 2.2
"""Batch normalisation has the statistics of so many batches of random images, resized from _EDGE
pixels. _DEVIATION is that of pixels of 1 in [-1, 1], normalised as those of ImageNet."""
_BIAS = 1.0
_EPSILON = 1e-3
"""Of MobileNetV3's batch normalisation, as its authors' code has it."""


class Gate(nn.Module):
    """Squeeze-and-excitation with a hard sigmoid, as in MobileNetV3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1)
        return x * F.hardsigmoid(self.up(F.relu(self.down(pooled))))


class Inverted(nn.Module):
    """An inverted residual of MobileNetV3."""

    def __init__(
        self, width: int, kernel: int, expanded: int, out: int, gated: int, hard: int, stride: int
    ) -> None:
        super().__init__()
        activation = nn.Hardswish if hard else nn.ReLU
        wide = [
            nn.Conv2d(width, expanded, 1, bias=False),
            nn.BatchNorm2d(expanded, _EPSILON),
            activation(),
        ]
        self.body = nn.Sequential(
            *(wide if expanded != width else []),
            nn.Conv2d(expanded, expanded, kernel, stride, kernel // 2, groups=expanded, bias=False),
            nn.BatchNorm2d(expanded, _EPSILON),
            activation(),
            Gate(expanded) if gated else nn.Identity(),
            nn.Conv2d(expanded, out, 1, bias=False),
            nn.BatchNorm2d(out, _EPSILON),
        )
        self.same = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


_SMALL = (
    *((3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2)),
    *((5, 240, 40, 1, 1, 1), (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1), (5, 144, 48, 1, 1, 1)),
    *((5, 288, 96, 1, 1, 2), (5, 576, 96, 1, 1, 1), (5, 576, 96, 1, 1, 1)),
)
"""MobileNetV3-Small: kernel, expanded width, width, gate, hard swish, stride."""


def mobilenet_v3() -> nn.Module:
    """MobileNetV3-Small."""
    widths = [16, *(row[2] for row in _SMALL)]
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16, _EPSILON), nn.Hardswish()),
        *(Inverted(width, *row) for width, row in zip(widths, _SMALL, strict=False)),
        *(nn.Conv2d(96, 576, 1, bias=False), nn.BatchNorm2d(576, _EPSILON), nn.Hardswish()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Linear(576, 1024), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1024, len(NAMES))),
    )


class CrossFusion(nn.Module):
    """Two streams of tokens, each attending to its own with the queries of the other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.all = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.wide = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(2)
        )

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        streams, parts = [first, second], []
        for x, norm, project in zip(streams, self.norms[:2], self.all, strict=True):
            split = project(norm(x)).unflatten(-1, (3, self.heads, -1))
            parts.append(split.permute(2, 0, 3, 1, 4).unbind(0))
        found = []
        for i, (x, (_, key, value)) in enumerate(zip(streams, parts, strict=True)):
            read = F.scaled_dot_product_attention(parts[1 - i][0], key, value)
            x = x + self.out[i](read.transpose(1, 2).flatten(2))
            found.append(x + self.wide[i](self.norms[2 + i](x)))
        return found[0], found[1]


class TwoStreams(nn.Module):
    """Image features and landmark features at three sizes, fused by attention to each other.

    As in POSTER, the landmarks' stream sees the image at half its size.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 96)
        self.image, self.marks = self._stem(3, 24, 4), self._stem(3, 24, 2)
        pairs = list(zip((24, *widths), widths, strict=False))
        self.image_stages = nn.ModuleList(self._stage(a, b, nn.PReLU(b)) for a, b in pairs)
        self.mark_stages = nn.ModuleList(self._stage(a, b, nn.Hardswish()) for a, b in pairs)
        self.fusions = nn.ModuleList(CrossFusion(width, 4) for width in widths)
        self.norm, self.head = nn.LayerNorm(2 * sum(widths)), nn.Linear(2 * sum(widths), len(NAMES))

    @staticmethod
    def _stem(channels: int, out: int, stride: int) -> nn.Module:
        layers = nn.Conv2d(channels, out, 7, stride, 3, bias=False), nn.BatchNorm2d(out)
        return nn.Sequential(*layers, nn.PReLU(out), nn.MaxPool2d(3, 2, 1))

    @staticmethod
    def _stage(width: int, out: int, activation: nn.Module) -> nn.Module:
        layers = nn.Conv2d(width, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), activation
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        small = F.interpolate(
            x, (x.shape[2] // 2, x.shape[3] // 2), mode="bilinear", antialias=True
        )
        image, marks, pooled = self.image(x), self.marks(small), []
        stages = zip(self.image_stages, self.mark_stages, self.fusions, strict=True)
        for image_stage, mark_stage, fusion in stages:
            image, marks = image_stage(image), mark_stage(marks)
            tokens = [maps.flatten(2).transpose(1, 2) for maps in (image, marks)]
            pooled += [stream.mean(1) for stream in fusion(*tokens)]
        return self.head(F.gelu(self.norm(torch.cat(pooled, -1))))


class Logits(nn.Module):
    """An image classifier of transformers as a function of prepared images."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(pixel_values=x).logits


def _of_transformers(
    kind: str, size: int, note: str, processor: str = "ViT", **fields: Any
) -> Architecture:
    def build() -> nn.Module:
        named = {"id2label": dict(enumerate(NAMES)), "image_size": size, **fields}
        config = getattr(transformers, f"{kind}Config")(**named)
        return Logits(getattr(transformers, f"{kind}ForImageClassification")(config))

    return Architecture(size, build, note, kind, processor)


def _efficientnet(size: int, width: float, depth: float, last: int) -> Architecture:
    return _of_transformers(
        "EfficientNet",
        size,
        "as published",
        "EfficientNet",
        width_coefficient=width,
        depth_coefficient=depth,
        hidden_dim=last,
    )


_TINY: dict[str, Any] = {"hidden_size": 192, "num_attention_heads": 3}

ARCHITECTURES = {
    "ResNet-18": _of_transformers(
        "ResNet",
        64,
        "as published",
        "ConvNext",
        **{"depths": [2] * 4, "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"},
    ),
    "EfficientNet-B0": _efficientnet(224, 1.0, 1.0, 1280),
    "EfficientNet-B2": _efficientnet(260, 1.1, 1.2, 1408),
    "MobileNetV2": _of_transformers("MobileNetV2", 64, "as published", "MobileNetV2"),
    "MobileNetV3": Architecture(64, mobilenet_v3, "Small, as published"),
    "ConvNeXt": _of_transformers(
        "ConvNext",
        224,
        "depths 2, 2, 6, 2, widths from 64 (Pico)",
        "ConvNext",
        **{"depths": [2, 2, 6, 2], "hidden_sizes": [64, 128, 256, 512]},
    ),
    "ViT": _of_transformers(
        "ViT", 224, "Tiny/16", **_TINY, num_hidden_layers=12, intermediate_size=768
    ),
    "Swin": _of_transformers(
        "Swin",
        224,
        "depths 2, 2, 2, 2, widths from 48, windows of 7",
        **{"embed_dim": 48, "depths": [2] * 4, "num_heads": [2, 4, 8, 16]},
    ),
    "DINOv2": _of_transformers(
        "Dinov2",
        224,
        "width 192, 6 layers; positions of 518 pixels, which it resizes",
        "Bit",
        image_size=518,
        **_TINY,
        patch_size=14,
        num_hidden_layers=6,
    ),
    "two streams": Architecture(224, TwoStreams, "like POSTER, widths 32, 64, 96"),
}
"""By name."""


def network(name: str) -> nn.Module:
    """The architecture `name` with random weights, frozen, in evaluation mode."""
    torch.manual_seed(0)
    made = ARCHITECTURES[name].build().requires_grad_(False)
    for module in made.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
            nn.init.ones_(module.weight)
            nn.init.constant_(module.bias, _BIAS)
    for parameter in made.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    normalises = any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    made.train()
    for _ in range(_STATISTICS if normalises else 0):
        pixels = _DEVIATION * torch.randn(_BATCH, 3, _EDGE, _EDGE)
        size = (ARCHITECTURES[name].size,) * 2
        made(F.interpolate(pixels, size, mode="bilinear", antialias=True))
    return made.eval()


def save_folder(made: Logits, name: str, folder: Path) -> None:
    """The network as transformers saves it, with the settings of its image processor."""
    made.model.save_pretrained(folder)
    size, processor = ARCHITECTURES[name].size, ARCHITECTURES[name].processor
    fields = {"image_processor_type": f"{processor}ImageProcessor", "size": size}
    if processor in ("Bit", "MobileNetV2"):
        fields |= {"size": {"shortest_edge": size * 8 // 7}, "crop_size": size}
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
