"""The frozen networks of a checkpoint, as a training uses them, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.graphs.trained_feranno import fingerprint, fixed_conditioning
from synfer_rt.export.networks.modules import Conditioner, Decoder, Denoiser, Encoder
from synfer_rt.export.sentences import first_line
from synfer_rt.export.training.augmentation import normal

_POSITIONS = {"cpu": 1 << 13}
_POSITIONS_ELSEWHERE = 1 << 15
"""Positions of latents that go through the UNet together, by the kind of device."""
_MOST_AT_ONCE = 64


def device_of(name: str) -> torch.device:
    """The device "auto" (a CUDA GPU if there is one, else the CPU), or that of PyTorch's name.

    Raises UserError for a name that PyTorch does not know, and for a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"`device={name!r}` does not work here ({first_line(error)}); leave it out, or name "
            "one that this PyTorch has, such as cpu or cuda."
        ) from None
    return device


def place_of(network: nn.Module) -> torch.device:
    """The device that a network is on."""
    return next(network.parameters()).device


def parts(checkpoint: Checkpoint) -> tuple[Conditioner, Denoiser]:
    """The checkpoint's conditioner and denoiser, whose UNet is changed in place."""
    labels = checkpoint.settings.class_labels
    conditioner = Conditioner(
        checkpoint.text_encoder, checkpoint.unet, checkpoint.adapter, labels
    ).eval()
    return conditioner, Denoiser(checkpoint.unet, conditioner.outputs, checkpoint.adapter).eval()


def at_once(checkpoint: Checkpoint, device: torch.device) -> int:
    """How many images go through the UNet together."""
    _, height, width = checkpoint.latent_shape
    positions = _POSITIONS.get(device.type, _POSITIONS_ELSEWHERE)
    return max(1, min(_MOST_AT_ONCE, positions // (height * width)))


def vae_fingerprint(checkpoint: Checkpoint) -> str:
    """The fingerprint of the VAE, whose latents a training reads."""
    return fingerprint(checkpoint.vae.state_dict())


@torch.no_grad()
def encoded(
    encoder: Encoder, images: Tensor, draws: Sequence[torch.Generator] | None = None
) -> Tensor:
    """Scaled latents [n, C, h, w] of images [n, 3, H, W] in [-1, 1].

    A draw from the posterior with a generator for each image; without any, its mean.
    """
    mean, logvar = encoder((images / 2 + 0.5).clamp(0, 1))
    if draws is None:
        return mean
    return mean + (logvar / 2).exp() * normal(mean.shape[1:], draws, mean.device)


class CleanPrediction:
    """The clean latents that the frozen UNet finds in noisy ones.

    Its condition is an empty prompt, so that what it restores comes from the face.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        conditioner, denoiser = parts(checkpoint)
        given = fixed_conditioning(checkpoint, conditioner, "")
        self._given = {name: tensor.to(device) for name, tensor in given.items()}
        self._denoiser = denoiser.to(device)
        self._alpha_bar = Schedule.from_manifest(checkpoint.schedule).alphas_cumprod
        self._predicts_v = checkpoint.prediction_type == "v_prediction"

    @torch.no_grad()
    def __call__(
        self, latents: Tensor, level: np.ndarray, draws: Sequence[torch.Generator]
    ) -> Tensor:
        """Predictions [n, C, h, w] for `latents` after noise of `level` [n], parts of the schedule.

        With the signal s and the noise n, s**2 + n**2 = 1, the clean latents are s * x - n * v, or
        (x - n * epsilon) / s.
        """
        times = (level * len(self._alpha_bar)).astype(np.int64)
        alpha_bar = torch.from_numpy(self._alpha_bar[times]).float().to(latents.device)
        signal, noise = (x.sqrt().view(-1, 1, 1, 1) for x in (alpha_bar, 1 - alpha_bar))
        noisy = signal * latents + noise * normal(latents.shape[1:], draws, latents.device)
        given = {n: x.expand(len(latents), *x.shape[1:]) for n, x in self._given.items()}
        found = self._denoiser.predict(noisy, torch.from_numpy(times).to(latents.device), given)
        if self._predicts_v:
            return signal * noisy - noise * found
        return (noisy - noise * found) / signal


@torch.no_grad()
def decoded(decoder: Decoder, latents: Tensor) -> Tensor:
    """Images [n, 3, H, W] of about [-1, 1], not clamped, as an image guide sees them."""
    shifted = latents / decoder.scale + decoder.shift
    return decoder.vae.decode(shifted, return_dict=False)[0]
