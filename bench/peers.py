"""The systems that synfer-rt is compared with, on the same weights and the same samples.

They have the stages condition, denoise, decode and write, and do not label. PyTorch and diffusers
are imported here alone, when a peer is loaded.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synfer_rt.bench.systems import EVENTS, SHOWN, Setup, Stopwatch, System, requests_of
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.files import file_entry
from synfer_rt.diffusion import noise
from synfer_rt.errors import UserError, installing
from synfer_rt.sampling.requests import Request
from synfer_rt.vocabulary import facs

if TYPE_CHECKING:
    from synfer_rt.export.files.au_adapter import AUAdapter

PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "accelerate")
"""What the peers need installed."""


@dataclass(frozen=True)
class Form:
    """How a peer runs: in `dtype`, one of torch's, and `compiled` or eager.

    Without a dtype it is float16 on a GPU and float32 on a CPU.
    """

    dtype: str | None = None
    compiled: bool = False


PEERS: Mapping[str, Form] = {
    "diffusers": Form(),
    "diffusers-compiled": Form(compiled=True),
    "diffusers-fp16": Form("float16"),
    "diffusers-bf16": Form("bfloat16"),
    "diffusers-fp16-compiled": Form("float16", compiled=True),
    "diffusers-bf16-compiled": Form("bfloat16", compiled=True),
}
"""The peers by the name that `compare` takes."""

_MOST_SHAPES = 64
"""Batch sizes for which torch.compile makes code of its own."""
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {"solver_order": 2}),
    "dpmpp-3m": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "unipc": ("UniPCMultistepScheduler", {"solver_order": 2}),
}
"""The scheduler of diffusers that is each solver, and its settings."""


def check_packages() -> None:
    """Raise UserError unless everything that the peers need is installed."""
    missing = [p for p in PACKAGES if importlib.util.find_spec(p) is None]
    if missing:
        raise UserError(
            f"Comparing with diffusers needs {', '.join(missing)}; {installing('export')}."
        )


def load(name: str, setup: Setup) -> System:
    """The peer `name`, a key of PEERS. Raises UserError where PyTorch lacks the GPU to run on."""
    return Diffusers(setup, PEERS[name])


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


class Diffusers(System):
    """Stable Diffusion as diffusers runs it: its UNet, scheduler and VAE in PyTorch.

    The AU adapter is diffusers' own decoupled cross-attention (IPAdapterAttnProcessor2_0). On a GPU
    convolutions are channels-last. Compiled are the UNet and the VAE's decoder, by
    `torch.compile(mode="max-autotune", dynamic=False)`. Each batch is saved with Pillow before the
    next begins.
    """

    def __init__(self, setup: Setup, form: Form) -> None:
        import diffusers
        import torch
        import transformers

        from synfer_rt.export.checkpoint.reading import read_checkpoint

        assert setup.checkpoint is not None
        self.bundle = setup.open()
        self._requests = requests_of(self.bundle)
        self._torch = torch
        torch.set_num_threads(setup.threads)
        self._to = _where(torch, setup, form)
        self.ran: Mapping[str, str] = {
            "runtime": f"torch {torch.__version__}, diffusers {diffusers.__version__}",
            "precision": str(self._to["dtype"]).removeprefix("torch."),
            "device": torch.cuda.get_device_name() if self._on_gpu else "cpu",
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
        self._decoder = self._vae.decode
        if self._on_gpu:
            for module in (self._unet, self._vae):
                module.to(memory_format=torch.channels_last)
        if form.compiled:
            torch._dynamo.config.recompile_limit = _MOST_SHAPES
            self._unet, self._decoder = (
                torch.compile(part, mode="max-autotune", dynamic=False)
                for part in (self._unet, self._decoder)
            )
        name, config = scheduler_of(setup, self.bundle)
        self._scheduler = getattr(diffusers, name).from_config(config)

    def run(self, batch: int, batches: int, steps: int, watch: Stopwatch, out: Path) -> None:
        """Write the samples that synfer-rt makes, as PNG files named by their indices."""
        from PIL import Image

        with self._torch.inference_mode():
            count = batch * batches
            watch.rows.update(conditioner=count, denoiser=count * steps, decoder=count)
            for first in range(0, batch * batches, batch):
                images = self._batch(self._requests[first : first + batch], steps, watch)
                with watch.stage("write"):
                    for i, image in enumerate(images, first):
                        Image.fromarray(image).save(out / f"{i:08d}.png")

    def _batch(self, requests: Sequence[Request], steps: int, watch: Stopwatch) -> np.ndarray:
        """The images of these requests, uint8 [B, H, W, 3]."""
        torch = self._torch
        with self._stage("condition", watch):
            conditioning = self._condition(requests)
        shape = self.bundle.latent.shape
        start = np.stack([noise.normal(r.seed, r.index, shape) for r in requests])
        with self._stage("denoise", watch):
            latents = self._denoise(torch.from_numpy(start), conditioning, requests, steps)
        with self._stage("decode", watch):
            config = self._vae.config
            latents = latents / config.scaling_factor + (config.shift_factor or 0.0)
            images = self._decoder(latents, return_dict=False)[0]
            images = (images / 2 + 0.5).clamp(0, 1).float().permute(0, 2, 3, 1)
            images = (images * 255).round().to(torch.uint8).contiguous().cpu()
        return images.numpy()

    def images(self, out: Path) -> np.ndarray:
        """The first images of the run in `out`, uint8 [n, H, W, 3]."""
        from PIL import Image

        files = sorted(out.glob("*.png"))[:SHOWN]
        return np.stack([np.asarray(Image.open(file)) for file in files])

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
            torch.compiler.cudagraph_mark_step_begin()  # the last step's output is no longer needed
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

    @property
    def _on_gpu(self) -> bool:
        return self._to["device"] == "cuda"

    @contextmanager
    def _stage(self, name: str, watch: Stopwatch) -> Generator[None]:
        """Count the time inside as that of a stage, on a GPU by events as well.

        CUDA computes in the background: a stage ends when its work is done.
        """
        if not self._on_gpu:
            with watch.stage(name):
                yield
            return
        cuda = self._torch.cuda
        begin, end = (cuda.Event(enable_timing=True) for _ in range(2))
        with watch.stage(name):
            begin.record()
            yield
            end.record()
            end.synchronize()
        watch.device += begin.elapsed_time(end) / 1000
        watch.clock = EVENTS


def scheduler_of(setup: Setup, bundle: Bundle) -> tuple[str, dict[str, Any]]:
    """The class of diffusers that is the setup's solver, and its configuration."""
    assert setup.checkpoint is not None
    name, options = SCHEDULERS[setup.solver]
    config = json.loads((setup.checkpoint / "scheduler" / "scheduler_config.json").read_text())
    offset = bundle.schedule.steps_offset  # the pipeline's, whatever the file says
    return name, {**config, "steps_offset": offset, **options}


def _where(torch: Any, setup: Setup, form: Form) -> dict[str, Any]:
    """Device and dtype, as keywords of torch's `to`."""
    if setup.on_gpu and not torch.cuda.is_available():
        raise UserError(
            f"torch {torch.__version__} does not reach the GPU, so diffusers cannot be compared; "
            "install a build of PyTorch for CUDA (https://pytorch.org/get-started)."
        )
    dtype = form.dtype or ("float16" if setup.on_gpu else "float32")
    return {"device": "cuda" if setup.on_gpu else "cpu", "dtype": getattr(torch, dtype)}


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
