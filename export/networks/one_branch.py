"""Denoisers that go once through the UNet, on the conditional branch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from synfer_rt.export.networks.modules import Denoiser, solver_step


class ConditionalDenoiser(nn.Module):
    """One solver step of `denoiser` without guidance: its UNet on branch 1 of the conditioning.

    It is the Denoiser at guidance 1, for half the work.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self,
        latents: Tensor,
        history: Tensor,
        timestep: Tensor,
        coefficients: Tensor,
        *conditioning: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """next_latents, next_history, prediction."""
        prediction = _predicted(self.denoiser, latents, timestep, conditioning)
        return *solver_step(latents, prediction, history, coefficients), prediction


class GuidanceEmbeddingDenoiser(nn.Module):
    """One solver step of a UNet that embeds guidance: once through it, on branch 1."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

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
        prediction = _predicted(self.denoiser, latents, timestep, conditioning, guidance)
        return *solver_step(latents, prediction, history, coefficients), prediction


def _predicted(
    denoiser: Denoiser,
    latents: Tensor,
    timestep: Tensor,
    conditioning: Sequence[Tensor],
    guidance: Tensor | None = None,
) -> Tensor:
    given = dict(zip(denoiser.names, (c[:, 1] for c in conditioning), strict=True))
    return denoiser.predict(latents, timestep, given, guidance)
