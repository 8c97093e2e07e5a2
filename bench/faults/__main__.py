"""What faults cost a run: docs/results/faults.md.

    python -m synfer_rt.bench.faults --kills 100 --out docs/results/faults.md

makes small datasets with real processes in each format by each driver, does every fault to them,
lets them be completed by the same commands, and compares every byte with an undisturbed run of one
process. Its exit code is 1 if anything differs.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from synfer_rt.bench import machine
from synfer_rt.bench.faults.injection import DRIVERS, FAULTS
from synfer_rt.bench.faults.page import page
from synfer_rt.bench.faults.trials import Row, measure
from synfer_rt.bench.results import write_page
from synfer_rt.bundle import open_bundle
from synfer_rt.commands import options
from synfer_rt.commands.invocation import typed
from synfer_rt.data.writers import FORMATS
from synfer_rt.errors import UserError
from synfer_rt.jobs.diagnosis import RUNTIMES

_PACKAGES = "synfer-rt", "numpy", "ray", "s3fs", "moto"


@click.command()
@options.bundle
@click.option("--kills", default=100, show_default=True, help="Processes that are killed.")
@click.option("--count", default=40, show_default=True, help="Images of each run.")
@click.option("--shard-size", default=5, show_default=True, help="Images in a shard.")
@click.option("--quality", help="A quality of the bundle.  [default: the bundle's]")
@click.option("--backend", default="onnxruntime-cpu", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Decides the moments of the faults.")
@click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True, default=FORMATS)
@click.option(
    "--driver",
    "drivers",
    type=click.Choice([driver.name for driver in DRIVERS]),
    multiple=True,
    help="Only these.  [default: all]",
)
@click.option(
    "--fault",
    "faults",
    type=click.Choice([fault.name for fault in FAULTS]),
    multiple=True,
    help="Only these.  [default: all]",
)
@click.option(
    "--out", "to", type=options.LocalPath(), help="Write a page there, and its numbers as JSON."
)
def main(
    bundle: Path | None,
    kills: int,
    count: int,
    shard_size: int,
    quality: str | None,
    backend: str,
    seed: int,
    formats: tuple[str, ...],
    drivers: tuple[str, ...],
    faults: tuple[str, ...],
    to: Path | None,
) -> None:
    """Disturb runs by every fault, complete them, and compare every byte."""
    given = {"count": count, "shard-size": shard_size, "batch": shard_size, "threads": 1}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    words += [] if quality is None else ["--quality", quality]
    opened = open_bundle(bundle)
    settings = {
        "command": typed("python -m synfer_rt.bench.faults"),
        "bundle": f"{opened.name} {opened.version}",
        "backend": backend,
        "options": " ".join(words),
    }
    words += ["--backend", backend, "--bundle", str(opened.path)]
    try:
        rows, left_out = measure(
            words,
            formats,
            [driver for driver in DRIVERS if not drivers or driver.name in drivers],
            [fault for fault in FAULTS if not faults or fault.name in faults],
            kills,
            seed,
            lambda row: click.echo(_line(row)),
        )
        result = {
            "machine": machine.describe(1, (*_PACKAGES, *RUNTIMES)),
            "settings": settings,
            "rows": [asdict(row) for row in rows],
            "left_out": left_out,
        }
        if to is not None:
            write_page(to, page(result), result)
    except UserError as error:
        raise click.UsageError(str(error)) from None
    click.get_current_context().exit(not all(row.sound for row in rows))


def _line(row: Row) -> str:
    found = "as if nothing had happened" if row.sound else f"NOT SOUND: {row}"
    return f"{row.fault}, {row.format}, {row.driver}: {row.times} times, {found}"


if __name__ == "__main__":
    main()
