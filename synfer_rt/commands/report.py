"""The command `synfer-rt report`: one page of a run or of a table of `label`, or of two."""

from __future__ import annotations

from pathlib import Path

import click

from synfer_rt.commands import options


@click.command()
@click.argument("out", type=options.Output())
@click.argument("other", required=False, type=options.Output())
@click.option(
    "--out",
    "page",
    type=options.LocalPath(),
    default=Path("report.html"),
    show_default=True,
    metavar="PAGE",
    help="The page that is written; an earlier report there is replaced.",
)
@click.option(
    "--embed",
    default=32,
    show_default=True,
    metavar="MB",
    help="The most megabytes of image files in the page. Larger ones are linked where they lie in "
    "files of their own; else the page has thumbnails alone.",
)
@click.option(
    "--gallery",
    default=100_000,
    show_default=True,
    metavar="COUNT",
    help="The most images in the gallery, evenly spread.",
)
def report(out: Path | str, other: Path | str | None, page: Path, embed: int, gallery: int) -> None:
    """Write a page that shows a run, or a table that `label` wrote, in a browser.

    OUT is the directory or address of a finished run, or a .jsonl or .csv file; with OTHER, both
    are shown side by side. The page has the classes with their acceptance, the vote's confidence,
    requested and voted labels, attributes with an audit of acceptance, action units, nearest
    duplicates, and a gallery of all images with filters, whole records and the command that makes
    an image again. It is one file, needs no server, and asks for nothing from any network.
    """
    from synfer_rt import api
    from synfer_rt.commands.progress import ProgressBar

    with ProgressBar() as bar:
        made = api.write_report(
            out, other, page=page, embed=embed, gallery=gallery, on_progress=bar
        )
    images = " and ".join(map(str, made.images))
    click.echo(f"{made.path}: {images} images, {made.bytes / 1e6:.1f} MB; open it in a browser")
