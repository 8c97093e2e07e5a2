"""The look of a photograph: softness, tone, colour cast and grain.

Rendered edges are harder than any photograph's. The ranges are mild: expressions stay legible, and
a model spends little of its capacity on the look. Compression is left out, because its traces do
not survive the reduction to the size of training images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_SHADES = np.linspace(0, 1, 256, dtype=np.float32)


@dataclass(frozen=True)
class Film:
    """softness: Gaussian deviation as a share of the image's width. gamma, contrast, saturation:
    1 = as rendered. gains: of red, green, blue. grain: deviation of the noise, 0..1. seed: of the
    noise.
    """

    softness: float = 0.0
    gamma: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    grain: float = 0.0
    seed: int = 0


def sample_film(rng: np.random.Generator) -> Film:
    """From a sharp studio portrait to a soft, slightly tinted snapshot."""
    red, green, blue = rng.normal(1, (0.02, 0.01, 0.03)).tolist()
    return Film(
        softness=float(rng.uniform(0.003, 0.0075)),
        gamma=float(np.exp(rng.normal(0, 0.07))),
        contrast=float(rng.uniform(0.92, 1.14)),
        saturation=float(rng.uniform(0.75, 1.08)),
        gains=(red, green, blue),
        grain=float(rng.uniform(0, 0.008)),
        seed=int(rng.integers(1 << 31)),
    )


def develop(image: np.ndarray, film: Film) -> np.ndarray:
    """The uint8 [S, S, 3] image as `film` shows it, same shape and type."""
    from PIL import Image, ImageFilter

    soft = Image.fromarray(image).filter(ImageFilter.GaussianBlur(film.softness * len(image)))
    tone = 0.5 + film.contrast * (_SHADES**film.gamma - 0.5)
    curves = tone[:, None] * np.array(film.gains, np.float32)
    pixels = np.stack([curve[band] for curve, band in zip(curves.T, soft.split(), strict=True)], -1)
    grey = pixels @ _LUMA
    noise = np.random.default_rng(film.seed).standard_normal(grey.shape, np.float32)
    colour = film.saturation * (pixels - grey[..., None])
    developed = (grey + film.grain * noise)[..., None] + colour
    return (np.clip(developed, 0, 1) * 255 + 0.5).astype(np.uint8)
