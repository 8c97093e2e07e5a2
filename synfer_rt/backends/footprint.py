"""How much memory an engine needs for each image, estimated from its interface.

The interface says how large latents and images are, not how wide the network is. So the widths are
those of Stable Diffusion 1.5 (arXiv 2112.10752; the `config.json` of its UNet and VAE), the largest
kind of model that this package compiles, and of ResNet-50 for classifiers (arXiv 1512.03385,
table 1). A smaller model gets smaller pieces than it could take, which on a large GPU are no limit.

A UNet's outermost blocks have 320 channels and hold most. While the last of them computes its
feed-forward layer, 17 times 320 values live at each latent position: the skip connections that are
still to come (2), the block's input, its residual and the normalised one (3), the layer's two
halves (8) and their product (4). Attention that is not fused also holds, for each of 8 heads, a
score and a probability of every position for every other. A VAE holds most at full size, where a
layer has 256 channels in its input, its normalised input, its output and its workspace.

A gradient keeps what its forward pass computed. A block of width C keeps about 45 C values at each
of its positions; the UNet has 5 blocks at each of 4 levels of 320, 640, 1280 and 1280 channels, of
which each level has a quarter of the positions of the one before. Of the attention, the
probabilities of 5 outermost blocks are kept. The VAE keeps 7000 values a pixel.
"""

from __future__ import annotations

import math

from synfer_rt.bundle import FERANNO
from synfer_rt.bundle.engine_specs import (
    CACHING,
    FEATURES,
    ONE_BRANCH,
    EngineSpec,
    denoises,
)

WIDTH, HEADS = 320, 8
_LIVE = 17 * WIDTH
_KEPT = round(5 * 45 * (1 + 2 / 4 + 4 / 16 + 4 / 64) * WIDTH)
_KEPT_PROBABILITIES = 5
_PIXEL, _KEPT_PIXEL = 4 * 256, 7_000
_FINISHED = 100
"""Bytes of a pixel while it is checked and converted to 8 bits: three channels in float32, eight
times."""
_CLASSIFIER = 5 * 64 * 112 * 112
"""Values that live at once in ResNet-50 at 224x224 pixels: the first convolution's output as it is,
normalised and activated, and the first block's output and shortcut, of 256x56x56."""
_RESIZED = 16
"""Values of a pixel while an image is resized and normalised."""
_TEXT = 16
"""Values of a text encoder for each value of the text embedding: 4 in attention, 8 in the
feed-forward layer, 4 in between."""
_SLACK = 2
"""What a runtime holds for each byte that it needs: workspaces of convolutions, and an arena whose
chunks fit no other shape."""
_SHARES = {"guide": 3 / 8, "decoder": 1 / 8}
_SHARE_OF_A_BRANCH = 3 / 16
_OTHER_SHARE = 1 / 16


def share(engine: str) -> float:
    """The part of the free memory that an engine may take.

    Engines keep what they allocated, so the parts of a denoiser of two branches, a decoder and
    eight others are 1 together. A denoiser of one branch has half of the other's part, so that it
    takes the same pieces; where both are loaded, it has the place of three others. The two engines
    that cache features take turns in the denoiser's place and divide its part. A guide may take as
    much as a denoiser, whose pieces are then a guide's, and small.
    """
    if engine in CACHING:
        return _SHARE_OF_A_BRANCH
    if denoises(engine):
        return branches(engine) * _SHARE_OF_A_BRANCH
    return _SHARES.get("guide" if engine.startswith("guide.") else engine, _OTHER_SHARE)


def branches(engine: str) -> int:
    """How many branches of classifier-free guidance a denoiser computes for each image."""
    return 1 if engine in ONE_BRANCH else 2


def bytes_per_image(
    spec: EngineSpec, positions: int, pixels: int, *, half: bool, fused: bool
) -> int:
    """The bytes that an engine needs for each image of a batch.

    `positions` is the height times the width of the latents, `pixels` that of an image. `half` says
    whether it computes in float16, `fused` whether its attention is fused.
    """
    scores = 0 if fused else HEADS * positions**2
    single = 4 * _features(spec, positions)
    if denoises(spec.name):
        values = branches(spec.name) * (_LIVE * positions + 2 * scores)
    elif spec.name == FERANNO:
        values = _LIVE * positions + 2 * scores
    elif spec.name in ("guide.text", "guide.text-latent"):
        values = _KEPT * positions + (_KEPT_PROBABILITIES + 2) * scores
        values += _KEPT_PIXEL * pixels if spec.name == "guide.text" else 0
    elif spec.name == "guide.latent":
        values = _LIVE * positions
    elif spec.name in ("decoder", "encoder"):
        values = _PIXEL * pixels + (0 if fused else 2 * positions**2)  # one head
        single = _FINISHED * pixels
    elif spec.name == "conditioner":
        sizes = (math.prod(int(n) for n in tensor.shape[1:]) for tensor in spec.outputs)
        values = _TEXT * sum(sizes)
    else:
        values = _CLASSIFIER + _RESIZED * pixels
    return _SLACK * (values * (2 if half else 4) + single)


def _features(spec: EngineSpec, positions: int) -> int:
    """How many values of cached features an engine takes or gives, always in float32.

    Their height and width are numbers, or free and then those of the latents.
    """
    values = 0
    for tensor in (*spec.inputs, *spec.outputs):
        if tensor.name == FEATURES:
            sizes = [size for size in tensor.shape[1:] if isinstance(size, int)]
            free = len(sizes) < len(tensor.shape[1:])
            values += math.prod(sizes) * (positions if free else 1)
    return values
