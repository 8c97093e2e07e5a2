"""Whether a long run ends as it began: its memory and its speed, and whether all of it is sound.

    python -m synfer_rt.bench.memory --count 100000
    python -m synfer_rt.bench.memory --count 100000 --backend auto --page docs/results/long_run.md

prints the images per second and the process's memory in each tenth of the run, and reads all that
it wrote as `verify` does. What is kept for each image would show as a slope. Without `--backend`
the engines return at once (`host_side`), so all is measured but them. With `--photos` each image
starts from another photo, of which there are as many as images.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich import box
from rich.table import Table

from synfer_rt.backends import default_threads
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bench import machine, report
from synfer_rt.bench.host_side import InstantEngines
from synfer_rt.bench.results import write_page
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.commands import options
from synfer_rt.commands.invocation import typed
from synfer_rt.data import png
from synfer_rt.data.writers import FORMATS, Writer, open_output, run_file
from synfer_rt.errors import UserError
from synfer_rt.jobs.diagnosis import RUNTIMES
from synfer_rt.jobs.sample import execute, images_at_once
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.sample_settings import SampleSettings, make_run
from synfer_rt.jobs.verify import faults, settings_of

_STATUS = Path("/proc/self/status")
_PARTS = 10
_PICTURES = 16


@dataclass(frozen=True)
class Stretch:
    """A part of a run: so many `images` in so many `seconds`; then `resident` bytes in memory."""

    images: float
    seconds: float
    resident: int

    def __str__(self) -> str:
        return f"{self.images / self.seconds:.1f} images/s, {report.megabytes(self.resident)}"


def resident() -> int:
    """The bytes of this process that are in memory, as Linux counts them (proc(5), VmRSS)."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


def of_photos(folder: Path, count: int, bundle: Bundle) -> SampleSettings:
    """The settings of a run whose images start from so many photos in a folder, each from another.

    The photos are few files under many names.
    """
    height, width = bundle.image_size
    pictures = np.random.default_rng(0).integers(0, 256, (_PICTURES, height, width, 3), np.uint8)
    for number, file in enumerate(png.encode(pictures)):
        (folder / f"{number:08d}.png").write_bytes(file)
    for number in range(_PICTURES, count):
        os.link(folder / f"{number % _PICTURES:08d}.png", folder / f"{number:08d}.png")
    return {"layout_from": folder, "labels": bundle.classes[:1]}


def over_time(
    run: Run,
    engines: LoadedEngines,
    writer: Writer,
    batch: int,
    parts: int,
    tell: Callable[[Stretch], None] = lambda stretch: None,
) -> list[Stretch]:
    """Make the run, which has so many equal `parts`; `tell` is given each when it is made."""
    engines.load(run.engines, images_at_once(run, engines, batch))  # no part of the first
    found: list[Stretch] = []
    since, before = time.perf_counter(), 0.0

    def look(images: float) -> None:
        nonlocal since, before
        if images >= run.count * (len(found) + 1) / parts:
            now = time.perf_counter()
            found.append(Stretch(images - before, now - since, resident()))
            since, before = now, images
            tell(found[-1])

    execute(run, engines, writer, batch, look)
    return found


def checked(out: Path) -> dict[str, Any]:
    """What the run in `out` wrote, and what `verify` finds in it, as JSON values."""
    settings, read = settings_of(out), 0

    def count(images: int) -> None:
        nonlocal read
        read = images

    found = [f"{fault.place}: {fault.problem}" for fault in faults(out, settings, count)]
    files = [path for path in out.rglob("*") if path.is_file()]
    return {
        "shards": run_file.shard_count(settings),
        "bytes": sum(path.stat().st_size for path in files),
        "read": read,
        "faults": found,
    }


def page(result: Mapping[str, Any]) -> str:
    """The page of a long run, in Markdown."""
    settings, written = result["settings"], result["written"]
    table = report.right_aligned(box.MARKDOWN, "tenth", "images", "images/s", "memory")
    for number, stretch in enumerate(result["stretches"], 1):
        speed = report.number(stretch["images"] / stretch["seconds"])
        memory = report.megabytes(stretch["resident"])
        report.add(table, [f"{number}", f"{stretch['images']:.0f}", speed, memory])
    found = written["faults"]
    lines: tuple[str | Table, ...] = (
        f"Written by `{settings['command']}`.",
        *report.on_machine(result["machine"]),
        f"{settings['bundle']}, quality {settings['quality']}, on {settings['engines']}: "
        f"{settings['count']} images in batches of {settings['batch']}, written as "
        f"{settings['format']} in shards of {settings['shard_size']}.",
        table,
        f"`synfer-rt verify` read {written['read']} images in {written['shards']} shards, "
        f"{written['bytes'] / 1e6:.0f} MB, and found {len(found) or 'no'} "
        f"fault{'' if len(found) == 1 else 's'}.",
        report.listed(found),
        "Memory is what of the process lies in RAM at the end of the tenth (VmRSS). Engines were "
        "loaded before the first.",
    )
    title = f"# {settings['count']} images in one run"
    return f"{title}\n\n{report.markdown(iter(lines)).strip()}\n"


def _result(
    run: Run, engines: LoadedEngines, settings: Mapping[str, Any], tell: Callable[[Stretch], None]
) -> dict[str, Any]:
    format, batch, size = settings["format"], settings["batch"], settings["shard_size"]
    packages = ("synfer-rt", "numpy", *RUNTIMES)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        writer = open_output(out, run.settings(format), resume=False, shard_size=size)
        stretches = over_time(run, engines, writer, batch, _PARTS, tell)
        written = checked(out)
    return {
        "machine": machine.describe(engines.threads or default_threads(), packages),
        "settings": settings,
        "stretches": [asdict(stretch) for stretch in stretches],
        "written": written,
    }


@click.command()
@options.bundle
@click.option("--count", default=100_000, show_default=True, help="Images of the run.")
@click.option("--batch", default=256, show_default=True, help="Images at once.")
@click.option("--quality", help="A quality of the bundle.  [default: the bundle's]")
@click.option("--backend", help="Backend of the engines.  [default: engines that return at once]")
@click.option("--format", type=click.Choice(FORMATS), default="webdataset", show_default=True)
@click.option("--shard-size", default=1000, show_default=True, help="Images in a shard.")
@click.option("--photos", is_flag=True, help="Start each image from a photo of its own.")
@click.option(
    "--page", "to", type=options.LocalPath(), help="Write a page there, and its numbers as JSON."
)
def main(
    bundle: Path | None,
    count: int,
    batch: int,
    quality: str | None,
    backend: str | None,
    format: str,
    shard_size: int,
    photos: bool,
    to: Path | None,
) -> None:
    """Print speed and memory in each tenth of a run, and read all that it wrote."""
    try:
        opened = open_bundle(bundle)
        engines = InstantEngines(opened) if backend is None else LoadedEngines(opened, backend)
        with tempfile.TemporaryDirectory() as folder:
            given: SampleSettings = of_photos(Path(folder), count, opened) if photos else {}
            given["quality"] = quality
            run = make_run(opened, count=count, **given)
            settings = {
                "command": typed("python -m synfer_rt.bench.memory"),
                "bundle": f"{opened.name} {opened.version}",
                "engines": "engines that return at once" if backend is None else engines.backend,
                **{"quality": run.quality, "count": count, "batch": batch},
                **{"format": format, "shard_size": shard_size},
            }
            result = _result(run, engines, settings, lambda stretch: click.echo(str(stretch)))
        if to is not None:
            write_page(to, page(result), result)
    except UserError as error:
        raise click.UsageError(str(error)) from None
    written = result["written"]
    click.echo(f"{written['read']} images in {written['shards']} shards read")
    for fault in written["faults"]:
        click.echo(fault)
    click.get_current_context().exit(bool(written["faults"]))


if __name__ == "__main__":
    main()
