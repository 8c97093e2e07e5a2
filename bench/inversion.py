"""What it costs to invert photos, against denoising them, and how well they come back.

    python -m synfer_rt.bench.inversion --layout-from faces --count 32 --repeats 5

Each repeat takes the photos through every method of inversion and through the denoising of a
request for each, in turn, so that what else the machine does hits all alike. Inverting includes the
encoder. Evaluations count branches of the UNet, so a guided step has two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from rich import box

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bench import report
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.qualities import BEST
from synfer_rt.commands import options
from synfer_rt.diffusion.inversion import METHODS
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling import steps
from synfer_rt.sampling.inversion import STRENGTH, invert, neutral_request, psnr, read_photos
from synfer_rt.sampling.requests import Request, make_requests
from synfer_rt.sampling.sampler import Sampler

DENOISING = "denoising"
VAE = "through the VAE alone"


@dataclass(frozen=True)
class Cost:
    """What a way of inverting photos, or denoising, took.

    `evaluations` are those of the UNet's branches for a photo, `seconds` the time of each repeat,
    and `ratios` this time over that of denoising in the same repeat. `db` is the mean PSNR of
    photos that come back unchanged; None for denoising.
    """

    name: str
    evaluations: int
    seconds: Sequence[float]
    ratios: Sequence[float]
    db: float | None


def faces(bundle: Bundle, sampler: Sampler, path: Path | None, count: int) -> np.ndarray:
    """Up to `count` photos at `path`, float32 [n, 3, H, W], or faces of the layout bank."""
    if path is not None:
        photos = read_photos(path, bundle.image_size)
        return photos.images(range(min(count, len(photos))))
    if not len(bundle.layouts):
        raise UserError(f"{bundle.name} has no start faces; name photos with `layout_from`.")
    return sampler.decode(bundle.layouts.latents[:count].astype(np.float32))


def evaluations(bundle: Bundle, way: Trajectory, guidance: float) -> int:
    """How many branches of the UNet are computed for an image along a trajectory."""
    planned = steps.plan(bundle, way, np.array([guidance], np.float32))
    return sum(2 if step.reads_both_branches else 1 for step in planned)


def costs(
    sampler: Sampler, images: np.ndarray, way: Trajectory, guidance: float, repeats: int
) -> list[Cost]:
    """What inverting images by each method costs, and then what denoising costs."""
    bundle, count = sampler.bundle, len(images)
    requests = make_requests(bundle, photos=count, guidance=guidance)[:count]
    starts = {name: invert(sampler, images, way, method=name) for name in METHODS}  # warms up
    begin = next(iter(starts.values()))
    sampler.denoised(requests, begin, way)
    jobs: dict[str, Callable[[], object]] = {
        name: lambda name=name: invert(sampler, images, way, method=name) for name in METHODS
    }
    jobs[DENOISING] = lambda: sampler.denoised(requests, begin, way)
    took: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            took[name].append(time.perf_counter() - started)
    backwards = {name: method(way, bundle.prediction_type) for name, method in METHODS.items()}
    counted = {name: evaluations(bundle, back, 1.0) for name, back in backwards.items()}
    counted[DENOISING] = evaluations(bundle, way, guidance)
    return [
        Cost(
            name,
            counted[name],
            seconds,
            [one / other for one, other in zip(seconds, took[DENOISING], strict=True)],
            come_back(sampler, images, starts[name], way) if name in starts else None,
        )
        for name, seconds in took.items()
    ]


def come_back(sampler: Sampler, images: np.ndarray, starts: np.ndarray, way: Trajectory) -> float:
    """The mean PSNR in dB of images that are denoised from their starts without any change."""
    neutral: list[Request] = [neutral_request(sampler.bundle)] * len(images)
    return float(psnr(sampler.decode(sampler.denoised(neutral, starts, way)), images).mean())


def table(found: Sequence[Cost], count: int) -> str:
    """The costs as a table in Markdown, for one of `count` photos."""
    names = ("", "evaluations", "ms a photo", "of denoising", "from", "to", "dB")
    rows = report.right_aligned(box.MARKDOWN, *names)
    for cost in found:
        report.add(
            rows,
            [
                cost.name,
                f"{cost.evaluations}",
                f"{1000 * median(cost.seconds) / count:.1f}",
                f"{median(cost.ratios):.2f}",
                f"{min(cost.ratios):.2f}",
                f"{max(cost.ratios):.2f}",
                "" if cost.db is None else f"{cost.db:.2f}",
            ],
        )
    return report.markdown(iter([rows]))


@click.command()
@options.bundle
@click.option("--layout-from", type=options.LocalPath(), help="Photos.  [default: start faces]")
@click.option("--count", default=32, show_default=True, help="The most photos.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--steps", type=int, help="Solver steps.  [default: the bundle's]")
@click.option("--solver", help="[default: the bundle's]")
@click.option("--guidance", type=float, help="Of the denoising.  [default: the bundle's]")
@click.option("--layout-strength", default=STRENGTH, show_default=True)
@options.running
def main(bundle: Path | None, layout_from: Path | None, count: int, **given: Any) -> None:
    """Print what inverting photos costs against denoising them."""
    try:
        opened = open_bundle(bundle)
        sampler = Sampler(LoadedEngines(opened, given["backend"], given["threads"]))
        images = faces(opened, sampler, layout_from, count)
        way = opened.trajectory(
            given["solver"], given["steps"], given["layout_strength"], quality=BEST
        )
        guidance = given["guidance"] or opened.defaults_of(BEST).guidance
        found = costs(sampler, images, way, guidance, given["repeats"])
    except UserError as error:
        raise click.UsageError(str(error)) from None
    alone = psnr(sampler.decode(sampler.encode(images)[0]), images).mean()
    click.echo(
        f"{opened.name} {opened.version} on {sampler.backend}: {len(images)} photos, "
        f"{len(way.timesteps)} steps from {given['layout_strength']:g} of the schedule, guidance "
        f"{guidance:g}, {given['repeats']} repeats; {VAE} {alone:.2f} dB"
    )
    click.echo(table(found, len(images)))


if __name__ == "__main__":
    main()
