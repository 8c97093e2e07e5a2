"""The command line that runs, in words."""

from __future__ import annotations

from pathlib import Path

import click
from click.testing import CliRunner

from synfer_rt.commands.invocation import typed


@click.command()
@click.option("--out", type=Path)
@click.option("--images", default=3)
@click.option("--share", type=float)
@click.option("--layouts", is_flag=True)
@click.option("--depth", type=int, multiple=True)
@click.option("--with", "program")
def main(out, images, share, layouts, depth, program):
    click.echo(typed("python -m one"))


def test_given_options_are_named_but_no_paths():
    given = ["--out", "here", "--share", "0.250", "--layouts", "--depth", "1", "--depth", "3"]
    said = CliRunner().invoke(main, [*given, "--with", "a=/bin/b,c"]).output
    assert said == "python -m one --share 0.25 --layouts --depth 1 --depth 3 --with a=PYTHON,c\n"
