"""Images as the networks take them, changed at random so that a network sees more than it has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_BLURRED_BY_A_PIXEL = 64
"""Pixels of an image's edge for which the weaker blur reaches one pixel."""


def as_input(images_u8: np.ndarray) -> Tensor:
    """uint8 [n, H, W, 3] as float [n, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images_u8)).permute(0, 3, 1, 2) / 127.5 - 1


def generators(seed: int, numbers: np.ndarray) -> list[torch.Generator]:
    """A generator for each of these numbers: its draws depend on neither batch nor device."""
    seeds = (np.random.SeedSequence((seed, int(n))).generate_state(1, np.uint64) for n in numbers)
    return [torch.Generator().manual_seed(int(found[0] >> 1)) for found in seeds]


def normal(
    shape: Sequence[int], draws: Sequence[torch.Generator], device: torch.device | str
) -> Tensor:
    """Normal noise [n, *shape], a row from each generator."""
    return torch.stack([torch.randn(*shape, generator=draw) for draw in draws]).to(device)


def augmented(images: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    """Images [n, 3, H, W] in [-1, 1], each changed by `augment` with a generator of its own."""
    pairs = zip(images, draws, strict=True)
    return torch.cat([augment(image[None], draw) for image, draw in pairs])


def mirrored(images: Tensor, which: np.ndarray) -> Tensor:
    """Images [n, C, H, W], those of bool [n] as in a mirror."""
    chosen = torch.from_numpy(which).to(images.device)[:, None, None, None]
    return torch.where(chosen, images.flip(3), images)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change images [B, 3, H, W] in [-1, 1] at random: position, brightness, contrast, blur, noise.

    Blur matters: generated faces are softer than photos, and a reader trained without blur would
    judge sharpness instead of expression. It grows with the image.
    """
    b, device = len(images), images.device

    def u(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(b, 1, 1, 1, generator=generator)).to(device)

    scale, angle = u(0.92, 1.08).view(b), u(-0.12, 0.12).view(b)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    shift = u(-0.08, 0.08).view(b), u(-0.08, 0.08).view(b)
    theta = torch.stack([cos, -sin, shift[0], sin, cos, shift[1]], 1).view(b, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    soft = _blurred(images)
    kind = u(0, 1)
    images = torch.where(kind < 0.3, soft, torch.where(kind < 0.45, _blurred(soft), images))
    images = images * u(0.75, 1.25) + u(-0.2, 0.2)
    return images + u(0, 0.08) * torch.randn(images.shape, generator=generator).to(device)


def _blurred(images: Tensor) -> Tensor:
    radius = max(1, round(min(images.shape[2:]) / _BLURRED_BY_A_PIXEL))
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    return F.avg_pool2d(padded, 2 * radius + 1, 1)
