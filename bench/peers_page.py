"""docs/results/peers.md, written from the JSON of benchmarks that had peers.

    synfer-rt bench --compare … --json mini.json
    python -m synfer_rt.bench.peers_page docs/results/peers.md mini.json sd15.json

Each benchmark is one interleaved run. A row is a system and a stage at a batch size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.table import Table

from synfer_rt.bench import report
from synfer_rt.bench.results import FORMAT
from synfer_rt.commands.options import LocalPath
from synfer_rt.data.writers.atomic import write_whole
from synfer_rt.errors import UserError

Result = Mapping[str, Any]

_HEAD = """# synfer-rt beside what else runs Stable Diffusion

Written by `python -m synfer_rt.bench.peers_page` from benchmarks that [bench](../bench.md)
describes. All systems of a section ran in one interleaved run, each visit in a fresh process. Rows
of `all` are from prompt to files, those of a stage are that stage alone. Figures are medians over
the visits, with the fastest and the slowest run in brackets.
"""


def page(results: Sequence[Result]) -> str:
    """The page as Markdown. Raises UserError for what is no result of this release's `bench`."""
    for result in results:
        if not isinstance(result, dict) or result.get("format") != FORMAT:
            raise UserError(
                f"It is no result of this release's `bench` (format {FORMAT}); measure again with "
                "`synfer-rt bench --json`."
            )
    return f"{_HEAD}\n" + "\n\n".join(map(_section, results)).rstrip() + "\n"


def _section(result: Result) -> str:
    settings = result["settings"]
    height, width = settings["size"]
    title = f"## {settings['bundle']}, {height}x{width} pixels, {settings['steps']} steps"
    said = f"{title}\n\nWritten by `{settings['command']}`.\n\n"
    return said + report.markdown(_parts(result)).strip()


def _parts(result: Result) -> Iterator[str | Table]:
    yield from report.about(result)
    yield table(result)
    yield from report.arithmetic(result)
    yield from report.comparisons(result)
    yield from report.lacking(result)


def table(result: Result) -> Table:
    """A row for each system, batch and stage, with what it achieves of the measured peak."""
    peak = (result["peak"] or {}).get("flops_per_second")
    names = ("batch", "stage", "ms an image", "", "images/s", "GFLOP an image", "TFLOP/s")
    rows = report.right_aligned(box.MARKDOWN, "system", *names, "of peak", "RAM")
    for entry in result["summary"]:
        for stage, spread, work in _rows(entry):
            each = {key: 1000 * value / entry["batch"] for key, value in spread.items()}
            speed = entry["batch"] / spread["median"]
            report.add(
                rows,
                [
                    *(entry["system"], str(entry["batch"]), stage, *report.spread_of(each)),
                    report.number(speed),
                    *_achieved(work, speed, peak),
                    report.megabytes(entry["peak_rss_bytes"]) if stage == "all" else "",
                ],
            )
    return rows


def _achieved(work: float | None, speed: float, peak: float | None) -> list[str]:
    if work is None:
        return ["", "", ""]
    share = "" if peak is None else report.share(work * speed, peak)
    return [report.number(work / 1e9), report.number(work * speed / 1e12), share]


def _rows(entry: Result) -> Iterator[tuple[str, Mapping[str, float], float | None]]:
    """Stage, seconds of a batch, and operations for an image."""
    work = entry["flops"]
    yield "all", entry["seconds"], None if work is None else sum(work.values())
    if entry["model_images_per_second"] is None:
        return
    for stage, seconds in entry["stages"].items():
        if seconds["median"] > 0:
            yield stage, seconds, None if work is None else work.get(stage)


@click.command()
@click.argument("file", type=LocalPath())
@click.argument("results", type=LocalPath(), nargs=-1, required=True)
def main(file: Path, results: tuple[Path, ...]) -> None:
    """Write the page FILE from RESULTS, the JSON of benchmarks."""
    try:
        text = page([json.loads(result.read_text()) for result in results])
        write_whole(file, text.encode())
    except (UserError, OSError, ValueError) as error:
        raise click.UsageError(f"{file} was not written: {error}") from None


if __name__ == "__main__":
    main()
