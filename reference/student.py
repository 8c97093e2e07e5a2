"""A distilled student that is not in a bundle yet: its weights, and its samples by PyTorch.

The bundle of the teacher gives the tokenizer, the layouts and the decoder, so that samples differ
by the student alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from reference import model
from reference.evaluation.sampling import steps
from synfer_rt.bundle import Bundle
from synfer_rt.data import pixels
from synfer_rt.diffusion.solvers import HISTORY_SLOTS, Trajectory
from synfer_rt.export.build.unpack import unpack
from synfer_rt.export.training import cache
from synfer_rt.sampling.preparation import start_latents
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.vocabulary import facs


def teacher(bundle: Bundle, work: Path) -> model.Denoiser:
    """The denoiser whose engines `bundle` has, in evaluation mode; `work` keeps the checkpoint."""
    checkpoint = work / f"checkpoint-{bundle.bundle_hash[:12]}"
    if not checkpoint.exists():
        unpack(bundle, checkpoint)
    return model.load(checkpoint)[0].eval()


def load(path: Path, bundle: Bundle, work: Path) -> model.Denoiser:
    """A student of the bundle's model, in evaluation mode.

    `path` is a diffusers UNet folder or the state of train_student, which leaves out what is the
    teacher's. Raises SystemExit for weights that are not those of a student of this model.
    """
    denoiser = teacher(bundle, work)
    if path.is_dir():
        unet = UNet2DConditionModel.from_pretrained(path, torch_dtype=torch.float32)
        given = unet.state_dict()
    else:
        given = torch.load(path, weights_only=True, map_location="cpu", mmap=True).get("average")
        if given is None:
            raise SystemExit(f"{path} has no average; give the state of train_student.")
    shared = denoiser.state_dict()
    own = {f"unet.{name}": values for name, values in given.items()}
    try:
        denoiser.load_state_dict(shared | own)
    except RuntimeError as error:
        raise SystemExit(f"{path} does not fit {bundle.name}: {error}") from error
    return denoiser


def digest(denoiser: torch.nn.Module) -> str:
    """SHA-256 of the weights."""
    found = hashlib.sha256()
    for name, values in sorted(denoiser.state_dict().items()):
        found.update(name.encode() + values.numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Student:
    """A denoiser that needs no guidance; `sampler` decodes what it makes."""

    denoiser: model.Denoiser
    sampler: Sampler

    @torch.inference_mode()
    def latents(self, requests: Sequence[Request], way: Trajectory) -> np.ndarray:
        """Clean latents float32 [n, C, h, w]: one evaluation a step, of the prompt's branch.

        The AU scale of the requests must be 1, at which the student was trained.
        """
        assert all(request.au_scale == 1 for request in requests)
        bundle, n = self.sampler.bundle, len(requests)
        latents = torch.from_numpy(start_latents(requests, bundle, way))
        tokens = torch.from_numpy(bundle.tokenize([request.prompt for request in requests]))
        given = [request.aus for request in requests]
        aus = torch.from_numpy(facs.au_vectors(given, bundle.au_names))
        history = torch.zeros(n, HISTORY_SLOTS, *latents.shape[1:])
        coefficients = torch.from_numpy(way.coefficients)
        for timestep, matrix in zip(way.timesteps.tolist(), coefficients, strict=True):
            with sdpa_kernel(SDPBackend.MATH):  # faster than fused attention on so few tokens
                predicted = self.denoiser(latents, torch.full((n,), timestep), tokens, aus)
            stack = torch.cat([latents[:, None], predicted[:, None], history], 1)
            after = torch.einsum("kj,njchw->nkchw", matrix, stack)
            latents, history = after[:, 0], after[:, 1:]
        return latents.numpy()

    def kept(
        self, requests: Sequence[Request], way: Trajectory, work: Path, title: str
    ) -> np.ndarray:
        """Images uint8 [n, S, S, 3]; those that `work` has are not made again."""
        bundle = self.sampler.bundle.bundle_hash
        facts = bundle, digest(self.denoiser), *steps(way), list(requests)

        def make(rows: np.ndarray) -> dict[str, np.ndarray]:
            latents = self.latents([requests[i] for i in rows], way)
            return {"images": pixels.in_8_bits(pixels.finite(self.sampler.decode(latents)))}

        folder = work / f"student-{cache.key(*facts)}"
        return np.asarray(cache.rows(folder, len(requests), make, 64, title)["images"])
