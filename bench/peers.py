"""The systems that synfer-rt is compared with, on the same weights and the same samples.

They have the stages condition, denoise and decode, and neither label nor write. PyTorch and
diffusers are imported here alone, when a peer is loaded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synfer_rt.bench.systems import SHOWN, Setup, Stopwatch, System, requests_of
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.files import file_entry
from synfer_rt.diffusion import noise
from synfer_rt.errors import UserError, installing
from synfer_rt.sampling.requests import Request
from synfer_rt.vocabulary import facs

if TYPE_CHECKING:
    from synfer_rt.export.files.au_adapter import AUAdapter

PACKAGES = {"diffusers": ("torch", "diffusers", "transformers", "safetensors", "accelerate")}
"""What each peer needs installed."""

_SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {"solver_order": 2}),
    "dpmpp-3m": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "unipc": ("UniPCMultistepScheduler", {"solver_order": 2}),
}
"""The scheduler of diffusers that is each solver, and its settings."""


def check_packages(name: str) -> None:
    """Raise UserError unless everything that peer `name` needs is installed."""
    missing = [p for p in PACKAGES[name] if importlib.util.find_spec(p) is None]
    if missing:
        raise UserError(
            f"Comparing with {name} needs {', '.join(missing)}; {installing('export')}."
        )


def check_weights(checkpoint: Path, bundle: Bundle) -> None:
    """Raise UserError unless `checkpoint` has the weights that `bundle` was built from.

    The bundle's manifest names the SHA-256 of every file of weights that went into it.
    """
    hashes: Mapping[str, str] = bundle.manifest["source"].get("sha256", {})
    if not hashes:
        raise UserError(
            f"The bundle {bundle.path} does not say which weights it was built from; build it "
            "again with `synfer-rt build-engines`."
        )
    for file, expected in hashes.items():
        if file.endswith(".onnx"):  # classifiers, which peers do without
            continue
        path = checkpoint / file
        if not path.is_file():
            raise UserError(
                f"{path} is missing, and {bundle.path} was built from it; give the bundle's own "
                "checkpoint as `checkpoint`. (Peers cannot load LoRAs and adapters from elsewhere.)"
            )
        if file_entry(path)["sha256"] != expected:
            raise UserError(
                f"{path} is not the file that {bundle.path} was built from; give the bundle's own "
                "checkpoint as `checkpoint`, or build the bundle again from this one."
            )


class Diffusers:
    """Stable Diffusion as diffusers runs it: its UNet, scheduler and VAE in eager PyTorch.

    The AU adapter is diffusers' own decoupled cross-attention (IPAdapterAttnProcessor2_0). On the
    CPU everything is float32; on a GPU the precision is that of the bundle's denoiser.
    """

    def __init__(self, setup: Setup) -> None:
        import diffusers
        import torch
        import transformers

        from synfer_rt.export.checkpoint.reading import read_checkpoint

        assert setup.checkpoint is not None
        self.bundle = open_bundle(setup.bundle)
        self._requests = requests_of(self.bundle)
        self._images = np.zeros((0, 3, *self.bundle.image_size), np.float32)
        self._torch = torch
        torch.set_num_threads(setup.threads)
        on_gpu = not setup.backend.endswith("-cpu") and torch.cuda.is_available()
        half = on_gpu and self.bundle.engines["denoiser"].precision == "fp16"
        self._to = {
            "device": "cuda" if on_gpu else "cpu",
            "dtype": torch.float16 if half else torch.float32,
        }
        transformers.utils.logging.disable_progress_bar()
        checkpoint = read_checkpoint(setup.checkpoint)
        self._class_labels = checkpoint.settings.class_labels
        self._adapter = checkpoint.adapter
        if self._adapter is not None:
            processors = _processors(checkpoint.unet, self._adapter, self.bundle.defaults.au_scale)
            checkpoint.unet.set_attn_processor(processors)
        self._text_encoder = self._placed(checkpoint.text_encoder)
        self._unet = self._placed(checkpoint.unet)
        self._vae = self._placed(checkpoint.vae)
        name, options = _SCHEDULERS[setup.solver]
        scheduler = getattr(diffusers, name)
        config = scheduler.load_config(setup.checkpoint / "scheduler")
        offset = checkpoint.schedule["steps_offset"]  # the pipeline's, whatever the file says
        self._scheduler = scheduler.from_config({**config, "steps_offset": offset, **options})

    def run(self, batch: int, steps: int, watch: Stopwatch, out: Path) -> None:
        """Make the samples that synfer-rt makes."""
        torch = self._torch
        requests = self._requests[:batch]
        with torch.inference_mode():
            with watch.stage("condition"):
                conditioning = self._condition(requests)
                self._wait()
            shape = self.bundle.latent.shape
            start = np.stack([noise.normal(r.seed, r.index, shape) for r in requests])
            with watch.stage("denoise"):
                latents = self._denoise(torch.from_numpy(start), conditioning, requests, steps)
                self._wait()
            with watch.stage("decode"):
                config = self._vae.config
                latents = latents / config.scaling_factor + (config.shift_factor or 0.0)
                images = self._vae.decode(latents, return_dict=False)[0]
                images = (images / 2 + 0.5).clamp(0, 1).float().cpu().numpy()
        self._images = images

    def images(self, out: Path) -> np.ndarray:
        """The first images of the last run, uint8 [n, H, W, 3]."""
        return np.rint(self._images[:SHOWN].transpose(0, 2, 3, 1) * 255).astype(np.uint8)

    def _condition(self, requests: Sequence[Request]) -> dict[str, Any]:
        """The UNet's keywords for both branches: [unconditional ..., conditional ...]."""
        torch = self._torch
        texts = [r.negative_prompt for r in requests] + [r.prompt for r in requests]
        ids = torch.from_numpy(self.bundle.tokenize(texts)).to(self._to["device"])
        encoded = self._text_encoder(input_ids=ids)
        text = encoded.last_hidden_state
        aus = torch.zeros(len(texts), len(self.bundle.au_names))
        for i, request in enumerate(requests):
            vector = facs.au_vector(request.aus, self.bundle.au_names)
            aus[len(requests) + i] = torch.from_numpy(vector)
        aus = aus.to(**self._to)
        keywords: dict[str, Any] = {"encoder_hidden_states": text}
        if self._adapter is not None:
            project = self._adapter.projection.to(**self._to)
            keywords["encoder_hidden_states"] = (text, [project(self._adapter.maximum * aus)])
        parts = {"pooled_text": encoded.pooler_output, "aus": self.bundle.defaults.au_scale * aus}
        if self._class_labels:
            keywords["class_labels"] = torch.cat([parts[name] for name in self._class_labels], 1)
        return keywords

    def _denoise(
        self, noise: Any, conditioning: Mapping[str, Any], requests: Sequence[Request], steps: int
    ) -> Any:
        torch, scheduler = self._torch, self._scheduler
        scheduler.set_timesteps(steps, device=self._to["device"])
        latents = noise.to(**self._to) * scheduler.init_noise_sigma
        guidance = torch.tensor([r.guidance for r in requests], **self._to)[:, None, None, None]
        for t in scheduler.timesteps:
            both = scheduler.scale_model_input(torch.cat([latents, latents]), t)
            output = self._unet(both, t, **conditioning, return_dict=False)[0]
            unconditional, conditional = output.chunk(2)
            output = unconditional + guidance * (conditional - unconditional)
            latents = scheduler.step(output, t, latents, return_dict=False)[0]
        return latents

    def _placed(self, module: Any) -> Any:
        # diffusers warns of every move, even one that changes nothing.
        where = {"device": module.device.type, "dtype": module.dtype}
        return module if where == self._to else module.to(**self._to)

    def _wait(self) -> None:
        """Wait for CUDA, which computes in the background: a stage ends when its work is done."""
        if self._to["device"] == "cuda":
            self._torch.cuda.synchronize()


def _processors(unet: Any, adapter: AUAdapter, scale: float) -> dict[str, Any]:
    """diffusers' processors for every attention of the UNet, by name."""
    from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0

    processors: dict[str, Any] = {}
    for i, name in enumerate(unet.attn_processors):
        if i not in adapter.to_v:
            processors[name] = AttnProcessor2_0()
            continue
        width, token_width = adapter.to_v[i].shape
        processor = IPAdapterAttnProcessor2_0(
            width, token_width, num_tokens=(adapter.tokens,), scale=scale
        )
        processor.to_k_ip[0].weight.data = adapter.to_k[i]
        processor.to_v_ip[0].weight.data = adapter.to_v[i]
        processors[name] = processor
    return processors


PEERS: dict[str, Callable[[Setup], System]] = {"diffusers": Diffusers}
"""The peers by the name that `compare` takes."""
