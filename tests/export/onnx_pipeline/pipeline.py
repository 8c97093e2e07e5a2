"""A pipeline in ONNX run by ONNX Runtime alone, with the solvers of synfer-rt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from synfer_rt.bundle import Bundle
from synfer_rt.data.pixels import in_8_bits
from synfer_rt.diffusion.solvers import HISTORY_SLOTS, Trajectory


def session(folder: Path, name: str) -> Any:
    path = str(folder / name / "model.onnx")
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def images(
    folder: Path,
    bundle: Bundle,
    way: Trajectory,
    texts: list[str],
    noise: np.ndarray,
    guidance: float,
) -> np.ndarray:
    """Images uint8 [n, H, W, 3] of prompts and noise [n, C, h, w]; the negative prompt is empty.

    `bundle` gives the tokens and the scale of latents alone.
    """
    encoder, unet, decoder = (session(folder, n) for n in ("text_encoder", "unet", "vae_decoder"))
    ids = bundle.tokenize(["" for _ in texts] + texts)
    (text, *_) = encoder.run(["last_hidden_state"], {"input_ids": ids})
    latents, count = way.noise * noise, len(texts)
    history = np.zeros((count, HISTORY_SLOTS, *noise.shape[1:]), np.float32)
    for timestep, coefficients in zip(way.timesteps, way.coefficients, strict=True):
        given = {
            "sample": np.concatenate([latents, latents]).astype(np.float32),
            "timestep": np.array(timestep, np.float32),
            "encoder_hidden_states": text,
        }
        (output,) = unet.run(None, given)
        prediction = output[:count] + guidance * (output[count:] - output[:count])
        stack = np.concatenate([latents[:, None], prediction[:, None], history], 1)
        rows = np.einsum("ij,njchw->nichw", coefficients, stack)
        latents, history = rows[:, 0], rows[:, 1:]
    scaled = (latents / bundle.latent.scaling_factor).astype(np.float32)
    (decoded,) = decoder.run(None, {"latent_sample": scaled})
    return in_8_bits((decoded / 2 + 0.5).clip(0, 1))
