"""Train the text encoder, UNet and AU adapter of synfer-mini on the VAE's latents of renders.

    torchrun --nproc-per-node 2 -m reference.train_diffusion --renders DIR --vae DIR --out DIR

One single-threaded process runs on each core; their gradients are averaged. Training resumes from
`--out`, where `diffusion.log` and `snapshots/` (the averaged weights about every 16,384 images and
at the end) keep the learning curve. The model learns v-prediction (arXiv 2202.00512) with min-SNR
weighting (arXiv 2303.09556) on a cosine schedule of zero terminal SNR (arXiv 2305.08891).
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL
from rich.progress import track
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from reference import captions, model, renders
from reference.classifiers import as_input
from reference.tokenizer import build as build_tokenizer
from reference.train_vae import feature_weights
from synfer_rt.export.training import cache
from synfer_rt.vocabulary import facs

SNR_CAP = 5.0
WEIGHT_FLOOR = 0.25
DROP_TEXT, DROP_BOTH = 0.08, 0.04
DROP_AUS = 0.4
"""Share of the examples with an expression whose action units are dropped.

Their captions always name the expression. In captions that name none, action units of 0 mean that
the face shows none.
"""
RANDOM_SHARE = 0.5
"""Share of the examples with random action units and no expression, which teach single units."""
CHECKPOINT_SECONDS = 240.0
SNAPSHOT_IMAGES = 16_384


@dataclass(frozen=True)
class Latents:
    """Posterior of every render (side 0) and of its mirror image (1); float16 [2, N, C, h, w]."""

    mean: np.ndarray
    std: np.ndarray


SHARD = 1024
"""Images whose latents are kept together."""


def caches_of(vae: AutoencoderKL, images: np.ndarray, out: Path) -> list[Path]:
    """Files for the posteriors of every SHARD images, named by a hash of these and of the encoder.

    So the latents of existing renders stay valid when renders are added.
    """
    encoder = [
        cache.digest(weights.numpy())
        for name, weights in vae.state_dict().items()
        if name.startswith(("encoder.", "quant_conv."))
    ]
    shards = [images[i : i + SHARD] for i in range(0, len(images), SHARD)]
    return [out / "latents" / f"{cache.key(encoder, cache.digest(part))}.npz" for part in shards]


def encode(vae: AutoencoderKL, images: np.ndarray, file: Path) -> None:
    """Write the posteriors of both sides of uint8 images [n, S, S, 3], unless they are there."""
    if file.exists():
        return
    shape = (2, len(images), *model.LATENT)
    mean, std = np.empty(shape, np.float16), np.empty(shape, np.float16)
    for i in range(0, len(images), 64):
        batch = as_input(images[i : i + 64])
        for side, seen in enumerate((batch, batch.flip(3))):
            with torch.no_grad():
                posterior = model.posterior(vae, seen)
            mean[side, i : i + 64], std[side, i : i + 64] = posterior.mean, posterior.std
    file.parent.mkdir(exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part.npz")
    np.savez(part, mean=mean, std=std)
    part.replace(file)


def read_latents(files: list[Path]) -> Latents:
    """What `encode` wrote."""
    shards = [np.load(file) for file in files]
    return Latents(*(np.concatenate([s[name] for s in shards], 1) for name in ("mean", "std")))


class Examples:
    """Batches of (latents, tokens, AU vectors) for row numbers of the renders."""

    def __init__(self, data: renders.Renders, latents: Latents) -> None:
        self.latents = latents
        self.labels = data.annotations["label"]
        aus = data.annotations["au"].astype(np.float32)
        self.aus = np.stack([aus, facs.mirror(aus)])
        columns = data.annotations
        rows = ({name: columns[name][i] for name in columns} for i in range(len(data)))
        self.faces = [captions.attributes(row) for row in rows]
        self.tokenizer = build_tokenizer()

    def draw(self, rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` of these rows in random order, RANDOM_SHARE of them without an expression."""
        unnamed = self.labels[rows] < 0
        share = round(RANDOM_SHARE * count)
        parts = (rows[unnamed], share), (rows[~unnamed], count - share)
        return rng.permutation(np.concatenate([rng.choice(part, n) for part, n in parts]))

    def batch(self, rows: np.ndarray, rng: np.random.Generator, dropout: bool = True):
        """Examples of `rows`, mirrored at random, newly captioned; `dropout` drops conditions."""
        side = (rng.random(len(rows)) < 0.5).astype(int)
        mean, std = self.latents.mean[side, rows], self.latents.std[side, rows]
        x = mean.astype(np.float32) + std * rng.standard_normal(mean.shape, np.float32)
        aus = self.aus[side, rows].copy()
        drop = rng.random(len(rows)) if dropout else np.ones(len(rows))
        silent = drop < DROP_TEXT + DROP_BOTH
        named = self.labels[rows] >= 0
        by_words = dropout & named & ~silent & (rng.random(len(rows)) < DROP_AUS)
        texts = []
        for i, (row, mirror) in enumerate(zip(rows, side, strict=True)):
            face = captions.mirrored(self.faces[row]) if mirror else self.faces[row]
            label, uniforms = int(self.labels[row]), rng.random(12)
            text = captions.caption(face, label, uniforms, always_named=bool(by_words[i]))
            texts.append("" if silent[i] else text)
        aus[by_words | (silent & (drop >= DROP_TEXT))] = 0
        tokens = np.array([e.ids for e in self.tokenizer.encode_batch(texts)])
        return torch.from_numpy(x), torch.from_numpy(tokens), torch.from_numpy(aus)


def velocity_loss(predict, batch, timesteps, alphas, weights, noise):
    """Weighted mean square error of v = alpha * noise - sigma * x, one number per image."""
    x, tokens, aus = batch
    signal = alphas[timesteps].sqrt().view(-1, 1, 1, 1)
    sigma = (1 - alphas[timesteps]).sqrt().view(-1, 1, 1, 1)
    output = predict(signal * x + sigma * noise, timesteps, tokens, aus)
    return (weights * (output - (signal * noise - sigma * x)).square()).mean((1, 2, 3))


def min_snr_weight(alphas: torch.Tensor) -> torch.Tensor:
    """min(SNR, cap) / (SNR + 1) for v-prediction, not below WEIGHT_FLOOR; [T]."""
    snr = alphas / (1 - alphas)
    return (snr.clamp(max=SNR_CAP) / (snr + 1)).clamp(min=WEIGHT_FLOOR)


@torch.no_grad()
def held_out_loss(denoiser, examples, rows, alphas, weights) -> float:
    """Mean `velocity_loss` on fixed images and noise at evenly spread timesteps."""
    rng = np.random.default_rng(0)
    noise_source = torch.Generator().manual_seed(0)
    losses = []
    for part in np.array_split(rows, max(1, len(rows) // 64)):
        batch = examples.batch(part, rng, dropout=False)
        timesteps = torch.linspace(10, 989, len(part)).long()
        noise = torch.randn(batch[0].shape, generator=noise_source)
        losses.append(velocity_loss(denoiser, batch, timesteps, alphas, weights, noise))
    return float(torch.cat(losses).mean())


def images_seen(checkpoint: Path) -> int:
    """How many images a checkpoint's weights were trained on, according to its `synfer.json`."""
    return json.loads((checkpoint / "synfer.json").read_text())["images_seen"]


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Replace gradients by their mean over the processes, in one all-reduce."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    assert len(gradients) == len(parameters)
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def latent_weights() -> torch.Tensor:
    """`feature_weights` at the latents' resolution, 1 on average; [1, 1, h, w]."""
    weights = F.avg_pool2d(feature_weights(64), 4)
    return weights / weights.mean()


def in_bfloat16(denoiser: torch.nn.Module) -> Callable[..., torch.Tensor]:
    """The denoiser with products in bfloat16; its output is float32."""

    def predict(*inputs: torch.Tensor) -> torch.Tensor:
        # Fused attention is slower in bfloat16 than in float32.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            return denoiser(*inputs).float()

    return predict


def stratified(count: int, timesteps: int) -> torch.Tensor:
    """Random timesteps int64 [count], one in each of `count` equal parts of the schedule."""
    strata = (torch.arange(count) + torch.rand(count)) / count
    return (strata * timesteps).long().clamp(max=timesteps - 1)


def step(
    loss: torch.Tensor, parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """One step of all processes by the mean of their gradients, clipped to norm 1."""
    optimizer.zero_grad()
    loss.backward()
    average_gradients(parameters)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def begin() -> tuple[int, int]:
    """Join the other processes; returns the rank of this one and their number."""
    torch.set_num_threads(1)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    dist.init_process_group("gloo")
    return dist.get_rank(), dist.get_world_size()


def encode_all(vae: AutoencoderKL, images: np.ndarray, out: Path) -> Latents:
    """The latents of all renders; each process encodes its share of those that are not kept."""
    rank, world = dist.get_rank(), dist.get_world_size()
    files = caches_of(vae, images, out)
    for i in track(range(rank, len(files), world), "encoding", disable=rank > 0):
        encode(vae, images[i * SHARD : (i + 1) * SHARD], files[i])
    dist.barrier()
    return read_latents(files)


def resume(out: Path, denoiser, optimizer) -> tuple[dict[str, torch.Tensor], int, int]:
    """Load what `checkpoint` wrote; returns the averaged weights, the steps and the images."""
    state = torch.load(out / "diffusion.pt", weights_only=True)
    denoiser.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["average"], state["steps"], state["seen"]


def shared_clock(started: float) -> float:
    """Seconds since `started` on the clock of process 0.

    One clock decides for all, so that no process waits for another that has stopped.
    """
    clock = torch.tensor([time.time() - started])
    dist.broadcast(clock, 0)
    return clock.item()


def rate_factor(steps: int, progress: float, cool_from: float) -> float:
    """Factor of the learning rate: a warm-up of 200 steps, and a linear decay from `cool_from` on.

    `progress` and `cool_from` are shares of the training's time.
    """
    decay = min(1.0, max(0.02, (1 - progress) / max(1e-9, 1 - cool_from)))
    return min(1.0, (steps + 1) / 200) * decay


@torch.no_grad()
def follow(average: dict[str, torch.Tensor], denoiser: torch.nn.Module, steps: int) -> None:
    """Update the exponential moving average of the weights, in place."""
    decay = min(0.9995, (1 + steps) / (20 + steps))
    for name, weight in denoiser.state_dict().items():
        if weight.is_floating_point():
            average[name].lerp_(weight, 1 - decay)
        else:
            average[name].copy_(weight)


def averaged_loss(denoiser, average: dict[str, torch.Tensor], *held_out) -> float:
    """`held_out_loss` of the averaged weights; the denoiser's own are restored afterwards."""
    kept = {name: weight.clone() for name, weight in denoiser.state_dict().items()}
    denoiser.load_state_dict(average)
    loss = held_out_loss(denoiser, *held_out)
    denoiser.load_state_dict(kept)
    return loss


def note(out: Path, report: str) -> None:
    """Print a line and append it to `diffusion.log`."""
    click.echo(report)
    with (out / "diffusion.log").open("a") as log:
        log.write(report + "\n")


@click.command()
@click.option("--renders", "directory", type=Path, required=True)
@click.option("--vae", "vae_directory", type=Path, required=True)
@click.option("--out", type=Path, required=True)
@click.option("--minutes", default=90.0)
@click.option("--batch", "batch_size", default=24, help="Images per process and step.")
@click.option("--rate", default=6e-4, help="Learning rate after 200 steps of warm-up.")
@click.option("--cool-from", default=1.0, help="Share of the minutes after which the rate decays.")
@click.option("--weights", type=Path, help="Checkpoint directory to start from.")
@click.option("--bf16", is_flag=True, help="Multiply in bfloat16, if the processor can.")
def main(directory, vae_directory, out, minutes, batch_size, rate, cool_from, weights, bf16):
    """Train for some minutes; checkpoints every few minutes."""
    rank, world = begin()
    out.mkdir(parents=True, exist_ok=True)
    data = renders.load(directory, 64)
    vae = AutoencoderKL.from_pretrained(vae_directory).eval()
    examples = Examples(data, encode_all(vae, data.images, out))
    train, held = data.rows(False), data.rows(True)[:512]
    torch.manual_seed(0)
    denoiser = model.load(weights)[0] if weights else model.new_denoiser()
    model.channels_last(denoiser)
    parameters = [p for p in denoiser.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, rate, (0.9, 0.99), weight_decay=0.01, fused=True)
    average = {k: v.detach().clone() for k, v in denoiser.state_dict().items()}
    steps, seen = 0, images_seen(weights) if weights else 0
    if (out / "diffusion.pt").exists():
        average, steps, seen = resume(out, denoiser, optimizer)
    elif rank == 0 and weights:
        snapshot(out, average, seen)
    alphas = model.new_scheduler().alphas_cumprod
    time_weight = min_snr_weight(alphas)
    space_weight = latent_weights()
    predict = in_bfloat16(denoiser) if bf16 else denoiser
    rng = np.random.default_rng((1, steps, rank))
    torch.manual_seed(1000 * steps + rank)
    started = saved = time.time()
    running: list[float] = []
    while True:
        progress = shared_clock(started) / (60 * minutes)
        if progress > 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * rate_factor(steps, progress, cool_from)
        batch = examples.batch(examples.draw(train, batch_size, rng), rng)
        timesteps = stratified(batch_size, len(alphas))
        noise = torch.randn_like(batch[0])
        losses = velocity_loss(predict, batch, timesteps, alphas, space_weight, noise)
        step((time_weight[timesteps] * losses).mean(), parameters, optimizer)
        steps += 1
        seen += batch_size * world
        if rank == 0 and seen % SNAPSHOT_IMAGES < batch_size * world:
            snapshot(out, average, seen)
        running.append(losses.mean().item())
        follow(average, denoiser, steps)
        if rank == 0 and time.time() - saved > CHECKPOINT_SECONDS:
            saved = time.time()
            checkpoint(out, denoiser, average, optimizer, steps, seen)
            score = averaged_loss(denoiser, average, examples, held, alphas, space_weight)
            report = (
                f"{time.strftime('%Y-%m-%dT%H:%M:%S')} steps {steps} images {seen} "
                f"{batch_size * world * len(running) / CHECKPOINT_SECONDS:.1f}/s "
                f"loss {np.mean(running):.4f} held-out {score:.4f}"
            )
            running.clear()
            note(out, report)
    if rank == 0:
        checkpoint(out, denoiser, average, optimizer, steps, seen)
        snapshot(out, average, seen)
    dist.barrier()
    dist.destroy_process_group()


def checkpoint(out: Path, denoiser, average, optimizer, steps: int, seen: int) -> None:
    """Write everything that resuming needs, to a temporary name, then rename."""
    part = out / "diffusion.part"
    state = {"model": denoiser.state_dict(), "average": average, "steps": steps, "seen": seen}
    torch.save(state | {"optimizer": optimizer.state_dict()}, part)
    part.replace(out / "diffusion.pt")


def snapshot(out: Path, average: dict[str, torch.Tensor], seen: int) -> None:
    """Keep the averaged weights in float16 as `snapshots/IMAGES.safetensors`."""
    folder = out / "snapshots"
    folder.mkdir(exist_ok=True)
    halved = {
        # safetensors refuses the channels-last weights that training has.
        k: (v.half() if v.is_floating_point() else v).contiguous()
        for k, v in average.items()
    }
    part = folder / f"{seen:09d}.part"
    save_file(halved, part)
    part.replace(part.with_suffix(".safetensors"))


if __name__ == "__main__":
    main()
