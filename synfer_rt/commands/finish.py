"""The command `synfer-rt finish`: the end of a run that was made in parts."""

from __future__ import annotations

from pathlib import Path

import click

from synfer_rt.commands import options
from synfer_rt.commands.class_table import NOT_JUDGED, print_classes


@click.command()
@click.argument("out", type=options.Output())
def finish(out: Path | str) -> None:
    """Finish the run in OUT that was made in parts, once all its shards are there.

    Every record is read and counted, the contact sheet is drawn, and the dataset card is written;
    of imagefolder, metadata.jsonl is made of its shards. The last part does the same but for the
    table. Shards that are already finished stay as they are.
    """
    from synfer_rt import api

    made = api.finish(out)
    print_classes(made.labelled, made.accepted, "images", "" if made.judged else NOT_JUDGED)
    click.echo(f"{out} holds {made.count} images; look at {made.contact_sheet}")
