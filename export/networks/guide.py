"""Semantic guidance: modules that steer sampling by a classifier's gradient.

SynFER (He et al., arXiv 2410.09865) moves the text conditioning against the gradient of a
classifier's loss on the predicted clean image x0, which is linear in the latents and the
prediction: `x0 = a * latents + b * prediction`. The gradients are torch.autograd's; they are
exported by gradient_graph.py. The loss is summed over the batch and every gradient is normalised
within its sample, so that no sample depends on its batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from synfer_rt.export.networks.modules import Denoiser

_SMALLEST_NORM = 1e-8
"""A gradient with a smaller norm is rounding error, and is not scaled up to full length."""


class TextGuide(nn.Module):
    """The conditioning's `text` with its conditional branch moved towards the target.

    For each token, `c <- c - strength * g / |g|` (the paper prints a plus, but a loss decreases
    against its gradient). g is the gradient of `loss` (x0 [B, C, h, w], target -> scalar), with x0
    from the UNet's conditional branch alone.

    forward(latents [B, C, h, w], timestep [], clean [2] = (a, b), target [B, classes] (a
    distribution), strength [B], of a UNet that embeds guidance also guidance [B], and the
    conditioning [B, 2, ...]) -> text [B, 2, L, D].
    """

    def __init__(self, denoiser: Denoiser, loss: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.loss = loss

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        clean: Tensor,
        target: Tensor,
        strength: Tensor,
        *rest: Tensor,
    ) -> Tensor:
        """The moved text."""
        embeds = self.denoiser.embeds_guidance
        guidance, conditioning = (rest[0], rest[1:]) if embeds else (None, rest)
        given = dict(zip(self.denoiser.names, (c[:, 1] for c in conditioning), strict=True))
        timesteps = timestep + 0 * strength  # [B], without a batch size in the graph

        def loss_of(text: Tensor) -> Tensor:
            prediction = self.denoiser.predict(
                latents, timesteps, {**given, "text": text}, guidance
            )
            return self.loss(clean[0] * latents + clean[1] * prediction, target)

        gradient = _gradient(loss_of, given["text"])
        norm = gradient.square().sum(-1, keepdim=True).sqrt().clamp_min(_SMALLEST_NORM)
        moved = given["text"] - strength[:, None, None] * gradient / norm
        text = conditioning[self.denoiser.names.index("text")]
        return torch.stack([text[:, 0], moved], 1)


class LatentGuide(nn.Module):
    """A finished solver step, corrected as if the predicted clean image had been moved first.

    `x0 <- x0 - strength * g / rms(g)` for each sample, with g the gradient of `loss` (x0, target ->
    scalar): `strength` is the root mean square of the move, in standard deviations of the latents.
    The step is linear in the prediction. A move of x0 by p is a change of the prediction by p / b,
    and so adds `coefficients[:, 1] * p / b` to the step's outputs.

    forward(latents, prediction, next_latents [B, C, h, w], next_history [B, K, C, h, w],
    coefficients [K+1, K+2], clean [2] = (a, b), target [B, classes], strength [B])
    -> next_latents, next_history.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self,
        latents: Tensor,
        prediction: Tensor,
        next_latents: Tensor,
        next_history: Tensor,
        coefficients: Tensor,
        clean: Tensor,
        target: Tensor,
        strength: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The corrected next_latents and next_history."""

        def loss_of(x0: Tensor) -> Tensor:
            return self.loss(x0, target)

        gradient = _gradient(loss_of, clean[0] * latents + clean[1] * prediction)
        rms = gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(_SMALLEST_NORM)
        change = -strength[:, None, None, None] / clean[1] * gradient / rms
        weights = coefficients[:, 1]
        return (
            next_latents + weights[0] * change,
            next_history + weights[1:, None, None, None] * change.unsqueeze(1),
        )


def _gradient(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(loss(x), x)[0]
