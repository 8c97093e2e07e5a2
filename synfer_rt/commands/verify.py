"""The command `synfer-rt verify`: whether an output is whole."""

from __future__ import annotations

from pathlib import Path

import click

from synfer_rt.commands import options
from synfer_rt.commands.notes import note


@click.command()
@click.argument("out", type=options.LocalPath())
def verify(out: Path) -> None:
    """Check what `sample` or `augment` wrote: every image, record and label.

    Everything in OUT is read and compared with the run's settings. Each fault is a line with its
    place; then the exit code is 1.
    """
    from synfer_rt.commands.progress import Progress
    from synfer_rt.data.writers import run_file
    from synfer_rt.jobs.verify import faults, settings_of

    settings = settings_of(out)
    count, found = run_file.count(settings), 0
    with Progress(0, count) as progress:
        for fault in faults(out, settings, progress.update):
            found += 1
            click.echo(f"{fault.place}: {fault.problem}")
    if found:
        number = "1 fault" if found == 1 else f"{found} faults"
        note(
            f"{number} in {out}. Run its command again with --resume: images and shards that "
            "are missing or cut short are made again. For others, delete the image or the shard "
            "that is named first."
        )
        click.get_current_context().exit(1)
    click.echo(f"{out}: all {count} images are there and whole.")
