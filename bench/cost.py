"""A model of what a dataset costs: docs/results/cost.md. Nothing here is a measurement of a GPU.

    python -m synfer_rt.bench.cost docs/results/cost.md

A GPU makes images at the rate of its slowest part: the arithmetic of the engines at a share of the
GPU's peak, the host's Python code, which is one thread at a time, the encoding of PNG files on the
cores beside the GPU, or the storage, which all GPUs share. Every assumption is an option.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.table import Table

from synfer_rt.bench import report
from synfer_rt.bench.results import write
from synfer_rt.commands import options
from synfer_rt.commands.invocation import typed
from synfer_rt.errors import UserError

IMAGES = 284_000, 1_400_000
"""The size of AffectNet, and five times that."""
GPUS = 1, 8, 64
_ENCODING = {64: 0.19e-3, 512: 11e-3}
"""Seconds of a core for a PNG file by its side in pixels (data/png.py; AMD EPYC)."""
_PYTHON = 0.41e-3
"""Seconds of a core for all else of an image of 64 pixels: 0.6 ms (docs/architecture.md) less its
encoding."""
_LARGE = {"conditioning": 26.6e9, "a step": 1606.5e9, "decoding": 2514.5e9}
"""Operations of Stable Diffusion 1.5 at 512 pixels for an image, with both branches of guidance;
counted on `bench.random_checkpoint`."""
_STAGES = {"condition": "conditioning", "denoise": "denoising", "decode": "decoding"}


@dataclass(frozen=True)
class Work:
    """What an image takes.

    `operations` by stage, of which a GPU does `share` of its peak in a second, `encoding` in
    seconds of a core, and `size` in bytes.
    """

    name: str
    operations: Mapping[str, float]
    share: float
    encoding: float
    size: float

    @property
    def heaviest(self) -> str:
        """The stage with the most operations."""
        return max(self.operations, key=lambda stage: self.operations[stage])


@dataclass(frozen=True)
class Site:
    """What makes the images.

    A GPU does `peak` operations a second, has `cores` beside it, takes `start` seconds to begin,
    and costs `price` an hour. `python` are the seconds of one thread for an image, and `storage`
    the bytes a second that all GPUs write together. A shard has `shard_size` images.
    """

    peak: float
    cores: float
    python: float
    storage: float
    start: float
    price: float
    shard_size: int


@dataclass(frozen=True)
class Estimate:
    """How long a run takes and what it costs, and what holds it back."""

    hours: float
    images_per_hour: float
    price: float
    bottleneck: str


def rates(work: Work, site: Site, gpus: int) -> dict[str, float]:
    """Images a second of each GPU of so many, if nothing else held it back, by what does."""
    return {
        work.heaviest: work.share * site.peak / sum(work.operations.values()),
        "Python": 1 / site.python,
        "PNG encoding": site.cores / work.encoding,
        "storage": site.storage / work.size / gpus,
    }


def estimate(work: Work, site: Site, gpus: int, images: int) -> Estimate:
    """The run of so many images on so many GPUs.

    A shard is made by one GPU, so the run ends with the GPU that has the most of them.
    """
    limits = rates(work, site, gpus)
    slowest = min(limits, key=lambda name: limits[name])
    shards = math.ceil(images / site.shard_size)
    most = min(math.ceil(shards / gpus) * site.shard_size, images)
    hours = (site.start + most / limits[slowest]) / 3600
    return Estimate(hours, images / hours, hours * min(gpus, shards) * site.price, slowest)


def small(result: Mapping[str, Any], system: str, share: float, size: float) -> Work:
    """The work of synfer-mini, whose operations a benchmark counted for the row `system`."""
    entry = _entry(result, system)
    labels = ("classifier.dense", "classifier.residual", "feranno")
    operations = {name: entry["flops"][stage] for stage, name in _STAGES.items()}
    operations["labelling"] = sum(result["flops"][name] for name in labels)
    name = f"{result['settings']['bundle']} `{system.rpartition(' ')[2]}`, 64 pixels"
    return Work(name, operations, share, _ENCODING[64], size)


def large(steps: int, share: float, size: float) -> Work:
    """The work of Stable Diffusion 1.5 at 512 pixels.

    An annotator that reads the UNet's features is taken to cost as much as one branch of a step,
    as that of synfer-mini does.
    """
    operations = {
        "conditioning": _LARGE["conditioning"],
        "denoising": steps * _LARGE["a step"],
        "decoding": _LARGE["decoding"],
        "labelling": _LARGE["a step"] / 2,
    }
    name = f"Stable Diffusion 1.5, 512 pixels, {steps} steps"
    return Work(name, operations, share, _ENCODING[512], size)


def checked(result: Mapping[str, Any], known: str, other: str) -> tuple[float, float, float]:
    """The model beside a measurement on a CPU.

    Returns the share of the peak that the row `known` reached, the images a second that the model
    gives with it for the row `other`, and those measured.
    """
    peak = result["peak"]["flops_per_second"]
    share = _entry(result, known)["flops_per_second"] / peak
    operations = sum(small(result, other, share, 1).operations.values())
    return share, share * peak / operations, _entry(result, other)["images_per_second"]["median"]


def _entry(result: Mapping[str, Any], system: str) -> Mapping[str, Any]:
    """The row of a system at the smallest batch that was measured."""
    return next(entry for entry in result["summary"] if entry["system"] == system)


def page(
    works: Sequence[Work], site: Site, result: Mapping[str, Any], command: str, unit: str
) -> str:
    """The page, in Markdown. `result` is the benchmark that the model is compared with."""
    lines: tuple[str | Table, ...] = (
        f"Written by `{command}`.",
        "**This is arithmetic, and nothing of it was measured on a GPU.** It is made of operations "
        "that were counted, times of the host that were measured on a CPU, and assumptions, each "
        "of which is an option of the command. Prices are assumptions too, and no vendor's.",
        _runs(works, site, unit),
        "## What holds a GPU back",
        "Images a second of one GPU, if only this held it back. The least is its rate, and the "
        "bottleneck of the table above.",
        _limits(works, site),
        "## What it is made of",
        report.listed([*map(_of_work, works), *_of_site(site, unit), _of_share(result)]),
    )
    return f"# What a dataset costs: a model\n\n{report.markdown(iter(lines)).strip()}\n"


def _of_work(work: Work) -> str:
    parts = (f"{name} {_thousands(value / 1e9)}" for name, value in work.operations.items())
    return (
        f"**{work.name}**: {_thousands(sum(work.operations.values()) / 1e9)} GFLOP an image "
        f"({', '.join(parts)}); {work.share:.0%} of the peak assumed; a file of "
        f"{work.size / 1e3:g} kB, encoded in {work.encoding * 1e3:g} ms of a core."
    )


def _of_site(site: Site, unit: str) -> Iterator[str]:
    yield (
        f"**A GPU** does {site.peak / 1e12:g} TFLOP/s at most, has {site.cores:g} cores, is ready "
        f"after {site.start:g} s, and costs {site.price:g} {unit} an hour. All GPUs together "
        f"write {site.storage / 1e6:g} MB/s."
    )
    yield (
        f"**The host** takes {site.python * 1e3:g} ms of one thread for an image beside the "
        "encoding: requests, tokens, noise, the vote and the files' envelopes. It was measured at "
        "64 pixels ([architecture](../architecture.md)); Python runs one thread at a time."
    )
    yield (
        f"**A run** is shards of {site.shard_size} images, each made by one GPU, and ends with "
        "the GPU that has the most of them."
    )
    yield (
        "**Not in it**: failures, queues, fees for storage and transfers, and GPUs that are paid "
        "for while they wait."
    )


def _of_share(result: Mapping[str, Any]) -> str:
    share, said, measured = checked(result, "synfer-rt best", "synfer-rt fast")
    return (
        f"**The share of the peak** is the weakest assumption. On a CPU, {share:.0%} of a "
        "measured peak were reached ([throughput](throughput.md), `best`). With this share, the "
        f"model gives {said:.1f} images/s for `fast` there, and {measured:.1f} were measured. "
        "GPUs reach less of the peak of a data sheet, and the less the smaller a model's layers "
        "are ([gpu](gpu.md#estimated))."
    )


def _thousands(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else report.number(value)


def _runs(works: Sequence[Work], site: Site, unit: str) -> Table:
    names = ("images", "GPUs", "hours", "images/hour", unit, "bottleneck")
    table = report.right_aligned(box.MARKDOWN, "bundle", *names)
    for work in works:
        for images in IMAGES:
            for gpus in GPUS:
                found = estimate(work, site, gpus, images)
                cells = [work.name, f"{images:,}", str(gpus), report.number(found.hours)]
                cells += [f"{found.images_per_hour:,.0f}", report.number(found.price)]
                report.add(table, [*cells, found.bottleneck])
    return table


def _limits(works: Sequence[Work], site: Site) -> Table:
    storage = [f"storage, {gpus} GPU{'s' * (gpus > 1)}" for gpus in GPUS]
    table = report.right_aligned(
        box.MARKDOWN, "bundle", "GPU's arithmetic", "Python", "PNG encoding", *storage
    )
    for work in works:
        limits = rates(work, site, 1)
        shared = [limits["storage"] / gpus for gpus in GPUS]
        values = [limits[work.heaviest], limits["Python"], limits["PNG encoding"], *shared]
        report.add(table, [work.name, *map(report.number, values)])
    return table


@click.command()
@click.argument("file", type=options.LocalPath())
@click.option(
    "--measured",
    type=options.LocalPath(),
    default=Path("docs/results/throughput.json"),
    show_default=True,
    help="JSON of a benchmark of synfer-mini.",
)
@click.option("--peak", default=989.0, show_default=True, help="TFLOP/s of a GPU's data sheet.")
@click.option("--small-share", default=0.10, show_default=True, help="Of the peak, at 64 pixels.")
@click.option("--large-share", default=0.40, show_default=True, help="Of the peak, at 512 pixels.")
@click.option("--steps", default=25, show_default=True, help="Guided steps at 512 pixels.")
@click.option("--small-file", default=10.0, show_default=True, help="kB of an image of 64 pixels.")
@click.option("--large-file", default=450.0, show_default=True, help="kB of one of 512 pixels.")
@click.option("--cores", default=8.0, show_default=True, help="CPU cores for each GPU.")
@click.option("--storage", default=1000.0, show_default=True, help="MB/s of all GPUs together.")
@click.option("--start", default=60.0, show_default=True, help="Seconds until a GPU is at work.")
@click.option("--price", default=3.0, show_default=True, help="Of a GPU with its host, an hour.")
@click.option("--unit", default="USD", show_default=True, help="Of the price.")
@click.option("--shard-size", default=1000, show_default=True, help="Images in a shard.")
def main(
    file: Path,
    measured: Path,
    small_share: float,
    large_share: float,
    steps: int,
    small_file: float,
    large_file: float,
    unit: str,
    peak: float,
    cores: float,
    storage: float,
    start: float,
    price: float,
    shard_size: int,
) -> None:
    """Write the page FILE."""
    site = Site(1e12 * peak, cores, _PYTHON, 1e6 * storage, start, price, shard_size)
    try:
        result = json.loads(measured.read_text())
        works = [
            small(result, "synfer-rt fast", small_share, 1e3 * small_file),
            small(result, "synfer-rt best", small_share, 1e3 * small_file),
            large(steps, large_share, 1e3 * large_file),
        ]
        text = page(works, site, result, typed("python -m synfer_rt.bench.cost"), unit)
        write("file", file, text)
    except (UserError, OSError, ValueError, LookupError, TypeError, StopIteration) as error:
        raise click.UsageError(f"{file} was not written: {error}") from None


if __name__ == "__main__":
    main()
