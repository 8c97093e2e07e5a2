"""Train the VAE of synfer-mini on renders, as a VAE-GAN (arXiv 2411.17254).

    python -m reference.train_vae --renders DIR --out DIR [--minutes 30]

Training resumes from `--out`; the adversarial loss starts after `--adversarial-from` images.
With `--decoder-of VAE` only that VAE's decoder is trained, so that every latent keeps its meaning
and a diffusion model of these latents stays valid. `--classifiers DIR` adds a perceptual loss on
the features of the networks that label expressions and action units.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn
from torch.nn import functional as F

from reference import classifiers, model, renders

KL_WEIGHT = 1e-3
PERCEPTUAL_WEIGHT = 1.0
PERCEIVED_BY = ("labeller", "au-labeller")
"""Those of `classifiers.NETWORKS` that the perceptual loss uses; none of them judges."""
ADVERSARIAL_SHARE = 0.4
"""Largest norm of the adversarial gradient at the last layer, relative to the reconstruction's."""
DISCRIMINATOR_ALONE = 1500
"""Images that the discriminator trains on before the decoder trains against it."""
CHECKPOINT_SECONDS = 180.0


class PatchDiscriminator(nn.Module):
    """Logits for overlapping patches of images [B, 3, H, W]."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.layers = nn.Sequential(
            norm(nn.Conv2d(3, width, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            norm(nn.Conv2d(width, 2 * width, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            norm(nn.Conv2d(2 * width, 4 * width, 3, 1, 1)),
            nn.LeakyReLU(0.2),
            norm(nn.Conv2d(4 * width, 1, 3, 1, 1)),
        )

    def forward(self, images):
        return self.layers(images)


def feature_weights(size: int) -> torch.Tensor:
    """[1, 1, size, size]: 1, rising to 3 at the eyes, brows and mouth of an aligned face."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    eyes = np.exp(-(((y - 0.36) / 0.13) ** 2) - ((x - 0.5) / 0.38) ** 4)
    mouth = np.exp(-(((y - 0.78) / 0.15) ** 2) - ((x - 0.5) / 0.26) ** 4)
    return torch.from_numpy(1 + 2 * np.maximum(eyes, mouth)).float()[None, None]


def reconstruction_loss(output, target, weights) -> torch.Tensor:
    """Weighted L1 on pixels, and L1 on gradients and on averages at two scales.

    The averages keep colour, which fine detail would otherwise displace from the few latents.
    """
    difference = output - target
    loss = (weights * difference.abs()).mean()
    for _ in range(2):
        for axis in (2, 3):
            loss = loss + 0.5 * difference.diff(dim=axis).abs().mean()
        difference = F.avg_pool2d(difference, 2)
        loss = loss + difference.abs().mean()
    return loss


def perceptual_loss(network: nn.Module, output, target) -> torch.Tensor:
    """Squared differences of a `residual_network`'s features, of unit length at every place.

    Summed over channels, averaged over places, images and stages (after arXiv 1801.03924, eq. 1).
    """
    losses = []
    for layer in network.children():
        output, target = layer(output), layer(target)
        if isinstance(layer, classifiers.Residual):
            both = F.normalize(output.float(), dim=1), F.normalize(target.float(), dim=1)
            losses.append((both[0] - both[1]).square().sum(1).mean())
        elif losses:
            break
    return torch.stack(losses).mean()


def adversarial_weight(reconstruction, adversarial, last_layer) -> torch.Tensor:
    """Scale that gives the adversarial loss its share of the gradient (arXiv 2012.09841, eq. 7)."""
    wanted, given = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm()
        for loss in (reconstruction, adversarial)
    )
    return (ADVERSARIAL_SHARE * wanted / (given + 1e-6)).clamp(max=1.0).detach()


def kl_divergence(posterior: DiagonalGaussianDistribution) -> torch.Tensor:
    """Divergence of a posterior from the standard normal distribution, averaged over latents."""
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def train_discriminator(
    judge: nn.Module, optimizer: torch.optim.Optimizer, real: torch.Tensor, fake: torch.Tensor
) -> None:
    """One step on the hinge loss, with images and their reconstructions."""
    hinge = F.relu(1 - judge(real).float()).mean() + F.relu(1 + judge(fake).float()).mean()
    optimizer.zero_grad()
    hinge.backward()
    optimizer.step()


def new_rate(optimizer: torch.optim.Optimizer, rate: float, elapsed: float, whole: float) -> None:
    """Set the learning rate after `elapsed` of `whole` seconds: a warm-up, later a linear decay."""
    warm = min(1.0, (elapsed + 5) / 30)
    for group in optimizer.param_groups:
        group["lr"] = rate * warm * min(1.0, 2.5 * (1 - elapsed / whole) + 0.01)


def batch(stack: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Images of `rows` as float [-1, 1] NCHW, each mirrored with probability 1/2."""
    images = torch.from_numpy(stack[np.sort(rows)]).permute(0, 3, 1, 2).float() / 127.5 - 1
    flips = torch.from_numpy(rng.random(len(rows)) < 0.5)
    return torch.where(flips[:, None, None, None], images.flip(3), images)


def psnr(vae, images) -> float:
    """PSNR of the posterior mean's reconstruction, in dB."""
    with torch.no_grad():
        output = model.decoded(vae, model.posterior(vae, images).mean).clamp(-1, 1)
    return float(-10 * torch.log10((output - images).square().mean() / 4))


def standardise_latents(vae, images) -> None:
    """Fold a per-channel shift and scale into the 1x1 convolutions around the latents.

    Afterwards latents sampled for `images` have mean 0 and deviation 1, and the scaling factor
    that diffusion needs is 1.
    """
    with torch.no_grad():
        latents = torch.cat([model.posterior(vae, part).sample() for part in images.split(64)])
        mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        c = len(mean)
        before, after = vae.quant_conv, vae.post_quant_conv
        after.bias += (after.weight[:, :, 0, 0] * mean).sum(1)
        after.weight *= std[None, :, None, None]
        before.bias[:c] = (before.bias[:c] - mean) / std
        before.weight[:c] /= std[:, None, None, None]
        before.bias[c:] -= 2 * std.log()


def perceivers_in(directory: Path) -> list[nn.Module]:
    """The networks whose features the decoder learns to keep."""
    return [classifiers.load(directory, name).requires_grad_(False) for name in PERCEIVED_BY]


def with_frozen_encoder(directory: Path) -> AutoencoderKL:
    """The VAE in `directory`, of which only the decoder trains, so that latents stay valid."""
    vae = AutoencoderKL.from_pretrained(directory)
    vae.encoder.requires_grad_(False)
    assert vae.quant_conv is not None
    vae.quant_conv.requires_grad_(False)
    return vae


def note(out: Path, report: str) -> None:
    """Print a line and append it to `vae.log`."""
    click.echo(report)
    with (out / "vae.log").open("a") as log:
        log.write(report + "\n")


@click.command()
@click.option("--renders", "directory", type=Path, required=True)
@click.option("--out", type=Path, required=True)
@click.option("--minutes", default=30.0)
@click.option("--batch", "batch_size", default=6)
@click.option("--rate", default=1.5e-3, help="Peak learning rate; it decays towards 0.")
@click.option("--adversarial-from", default=10**9, help="Images before the GAN loss starts.")
@click.option("--decoder-of", type=Path, help="Train only the decoder of this VAE.")
@click.option("--classifiers", "labellers", type=Path, help="Directory of the labellers.")
@click.option("--bf16", is_flag=True, help="Multiply in bfloat16, if the processor can.")
@click.option("--seed", default=0)
def main(
    directory, out, minutes, batch_size, rate, adversarial_from, decoder_of, labellers, bf16, seed
):
    """Train for some minutes, then write OUT/vae (a diffusers AutoencoderKL)."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    data = renders.load(directory, 64)
    train = data.rows(held_out=False)
    check = batch(data.images, data.rows(held_out=True)[:128], np.random.default_rng(1))
    vae = with_frozen_encoder(decoder_of) if decoder_of else model.new_vae()
    judge = PatchDiscriminator()
    perceivers = perceivers_in(labellers) if labellers else []
    for network in (vae, judge, *perceivers):
        model.channels_last(network)
    trained = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, rate, (0.9, 0.99), weight_decay=0.01)
    opponent = torch.optim.AdamW(judge.parameters(), 4e-4, (0.5, 0.9))
    seen = resumed(out / "vae.pt", vae, judge, optimizer, opponent)
    rng = np.random.default_rng((seed, seen))
    weights = feature_weights(64)
    started = saved = time.time()
    while (elapsed := time.time() - started) < 60 * minutes:
        new_rate(optimizer, rate, elapsed, 60 * minutes)
        images = batch(data.images, rng.choice(train, batch_size, replace=False), rng)
        # Not cached, because the discriminator's weights change within.
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
            with torch.set_grad_enabled(not decoder_of):
                posterior = model.posterior(vae, images)
            output = model.decoded(vae, posterior.sample()).float()
            reconstruction = reconstruction_loss(output, images, weights)
            for network in perceivers:
                unlike = perceptual_loss(network, output, images)
                reconstruction = reconstruction + PERCEPTUAL_WEIGHT * unlike
            divergence = kl_divergence(posterior)
            loss = reconstruction + KL_WEIGHT * divergence
            if seen >= adversarial_from:
                train_discriminator(judge, opponent, images, output.detach())
                if seen >= adversarial_from + DISCRIMINATOR_ALONE:
                    fooled = -judge(output).float().mean()
                    last_layer = vae.decoder.conv_out.weight
                    loss = loss + adversarial_weight(reconstruction, fooled, last_layer) * fooled
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        seen += batch_size
        if time.time() - saved > CHECKPOINT_SECONDS:
            saved = time.time()
            note(
                out,
                f"{seen} images, {elapsed / 60:.1f} min, L1 {reconstruction.item():.4f}, "
                f"KL {divergence.item():.2f}, held-out PSNR {psnr(vae, check):.2f} dB",
            )
            write(out / "vae.pt", vae, judge, optimizer, opponent, seen)
    write(out / "vae.pt", vae, judge, optimizer, opponent, seen)
    click.echo(f"held-out PSNR {psnr(vae, check):.2f} dB after {seen} images")
    if not decoder_of:
        standardise_latents(vae, batch(data.images, rng.choice(train, 1024), rng))
    vae.save_pretrained(out / "vae")


def resumed(path: Path, vae, judge, optimizer, opponent) -> int:
    """Load the state that `write` kept, if there is one; returns the images seen so far."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    parts = {"vae": vae, "judge": judge, "optimizer": optimizer, "opponent": opponent}
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["seen"]


def write(path, vae, judge, optimizer, opponent, seen) -> None:
    """Checkpoint to a temporary name, then rename."""
    part = path.with_suffix(".part")
    state = {"vae": vae.state_dict(), "judge": judge.state_dict(), "seen": seen}
    state |= {"optimizer": optimizer.state_dict(), "opponent": opponent.state_dict()}
    torch.save(state, part)
    part.replace(path)


if __name__ == "__main__":
    main()
