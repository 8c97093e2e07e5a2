"""A benchmark's result as tables, for the terminal and as a page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synfer_rt.bench.systems import STAGES

_PAGE_WIDTH = 1000
_SAME = 2.0
"""Largest mean difference, in 8-bit levels, of images that count as the same."""


def show(console: Console, result: Mapping[str, Any]) -> None:
    """Print the result of `benchmark.bench`."""
    for part in _parts(result, box.SIMPLE_HEAD):
        console.print(part, markup=False)


def page(result: Mapping[str, Any]) -> str:
    """The result as a page of Markdown."""
    text = io.StringIO()
    console = Console(file=text, width=_PAGE_WIDTH, color_system=None)
    settings = result["settings"]
    text.write(f"# Throughput of {settings['bundle']}\n\nWritten by `{settings['command']}`.\n")
    for part in _parts(result, box.MARKDOWN):
        text.write("\n")
        console.print(part, markup=False, highlight=False)
    lines = (line.rstrip() for line in text.getvalue().split("\n"))
    return re.sub("\n{3,}", "\n\n", "\n".join(lines))


def _parts(result: Mapping[str, Any], form: box.Box) -> Iterator[str | Table]:
    about, settings = result["machine"], result["settings"]
    gpus = "".join(f", {gpu}" for gpu in about["gpus"])
    ram = f", {about['ram_bytes'] / 2**30:.0f} GiB" if about["ram_bytes"] else ""
    yield f"{about['cpu']}, {about['cores']} cores{ram}{gpus}; {about['date']}"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    yield f"Python {about['python']}, {versions}"
    yield (
        f"{settings['bundle']}: {settings['solver']}, {settings['steps']} steps, "
        f"{settings['backend']}, {settings['threads']} threads"
    )
    yield _speeds(result, form)
    yield _stages(result, form)
    yield (
        "Medians over the visits, in brackets the slowest and the fastest run; warm-up is not "
        "counted. `model only` is images/s of condition, denoise and decode; stages are ms per "
        "image; `engines` is the share of time inside engine calls; RAM is the peak of the visit's "
        "own process."
    )
    for entry in result["speedups"]:
        yield (
            f"Batch {entry['batch']}: synfer-rt is {entry['ratio']:.2f} times as fast as "
            f"{entry['peer']} in condition, denoise and decode (labelling and writing left out)."
        )
    for entry in result["differences"]:
        verdict = "the same" if entry["mean"] <= _SAME else "NOT THE SAME: do not compare speeds"
        yield (
            f"{entry['images']} images of {entry['peer']} and synfer-rt are {verdict}; their "
            f"pixels differ by {entry['mean']:.3f} of 255 on average, {entry['max']} at most."
        )


def _speeds(result: Mapping[str, Any], form: box.Box) -> Table:
    with_gpu = bool(result["machine"]["gpus"])
    table = _right_aligned(form, "system", "batch", "images/s", "", "model only", "", "RAM")
    if with_gpu:
        table.add_column("GPU", justify="right")
    for entry in result["summary"]:
        cells = [entry["system"], str(entry["batch"])]
        for key in ("images_per_second", "model_images_per_second"):
            spread = entry[key]
            cells.append(_number(spread["median"]))
            cells.append(escape(f"[{_number(spread['min'])}, {_number(spread['max'])}]"))
        cells.append(_megabytes(entry["peak_rss_bytes"]))
        table.add_row(*cells, *([_megabytes(entry["gpu_bytes"])] if with_gpu else []))
    return table


def _stages(result: Mapping[str, Any], form: box.Box) -> Table:
    table = _right_aligned(form, "system", "batch", *STAGES, "engines")
    for entry in result["summary"]:
        cells = [entry["system"], str(entry["batch"])]
        for stage in STAGES:
            cells.append(_number(1000 * entry["stages"][stage]["median"] / entry["batch"]))
        share = entry["engine_share"]
        table.add_row(*cells, f"{share['median']:.0%}" if share else "")
    return table


def _right_aligned(form: box.Box, first: str, *others: str) -> Table:
    table = Table(box=form, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.0f} MB"
