"""The command `synfer-rt status`: how far a run is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from synfer_rt.commands import options
from synfer_rt.commands.quantities import duration

if TYPE_CHECKING:
    from synfer_rt.jobs.run_status import RunStatus


@click.command()
@click.argument("out", type=options.Output())
def status(out: Path | str) -> None:
    """Show which shards of the run in OUT are there, how fast it is, and how long the rest takes.

    A shard counts as damaged if this shows without reading everything, which `synfer-rt verify`
    does. The exit code is 0 if the run is finished, else 1.
    """
    from synfer_rt import api
    from synfer_rt.jobs.verify import spans

    found = api.status(out)
    size = f"{found.shards} shard{'s' * (found.shards != 1)} of {found.shard_size} images"
    most = ", at most" if found.at_most else ""
    click.echo(f"{out}: {found.format}, {found.count} images{most}, {size}")
    click.echo(f"there    {len(found.there)} ({found.images} images)")
    for kind, numbers in (("damaged", found.damaged), ("missing", found.missing)):
        if numbers:
            click.echo(f"{kind:8} {len(numbers)}: {spans(numbers)}")
    if not found.complete:
        click.echo(_speed(found))
    elif not found.finished:
        click.echo(f"all shards are there; finish it with synfer-rt finish {out}")
    if not found.finished:
        click.get_current_context().exit(1)


def _speed(found: RunStatus) -> str:
    """How fast shards are finished, and when something was last written."""
    last = f"last written {duration(found.idle)} ago"
    left = found.seconds_left
    if left is None or found.images_per_second is None:
        return f"no shard is finished yet; {last}"
    return f"{found.images_per_second:.1f} images/s, {duration(left)} left; {last}"
