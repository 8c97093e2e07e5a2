"""What a command left out of its input, and why: a file of it, and a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click

from synfer_rt.writers import run_file
from synfer_rt.writers.atomic import disk_errors, write_whole

FILE = "skipped.jsonl"
_SHOWN = 20


def write_skipped(out: Path, skipped: Mapping[str, str]) -> Path:
    """Write skipped.jsonl in the own folder of the run in `out`; returns its path.

    It has a line with name and reason for each. Raises UserError.
    """
    file = run_file.folder(out) / FILE
    lines = [json.dumps({"file_name": name, "error": why}) for name, why in skipped.items()]
    with disk_errors(out):
        write_whole(file, "".join(f"{line}\n" for line in lines).encode())
    return file


def report_skipped(skipped: Mapping[str, str], where: Path) -> None:
    """Say on stderr how many files were skipped, and which; `where` lists all of them."""
    if skipped:
        click.echo(f"{len(skipped)} files skipped (all of them in {where}):", err=True)
        for name, reason in list(skipped.items())[:_SHOWN]:
            click.echo(f"  {name}: {reason}", err=True)
