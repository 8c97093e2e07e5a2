"""Whether a long run's memory stays level: the host side, with engines that return at once.

`python -m synfer_rt.bench.memory --count 100000` prints the process's memory after each tenth of
the run. What is kept for each image would show as a slope.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from synfer_rt.bench.host_side import InstantEngines
from synfer_rt.bundle import open_bundle
from synfer_rt.data.writers import FORMATS, open_output
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.sample_settings import make_run

_STATUS = Path("/proc/self/status")


def resident() -> int:
    """The bytes of this process that are in memory, as Linux counts them (proc(5), VmRSS)."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


def over_time(run: Run, engines: InstantEngines, format: str, batch: int, parts: int) -> list[int]:
    """The process's bytes in memory after each of so many equal `parts` of the run."""
    found: list[int] = []

    def look(images: float) -> None:
        if images >= run.count * (len(found) + 1) / parts:
            found.append(resident())

    with tempfile.TemporaryDirectory() as folder:
        writer = open_output(Path(folder) / "out", run.settings(format), resume=False)
        execute(run, engines, writer, batch, look)
    return found


@click.command()
@click.option("--count", default=100_000, show_default=True, help="Images of the run.")
@click.option("--batch", default=256, show_default=True, help="Images at once.")
@click.option("--format", type=click.Choice(FORMATS), default="webdataset", show_default=True)
def main(count: int, batch: int, format: str) -> None:
    """Print the memory of a run of the default bundle after each tenth of it."""
    bundle = open_bundle()
    for size in over_time(make_run(bundle, count=count), InstantEngines(bundle), format, batch, 10):
        click.echo(f"{size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
