"""A benchmark's result as tables, for the terminal and as a page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from synfer_rt.bench.systems import STAGES

_PAGE_WIDTH = 1000
_SAME = 2.0
"""Largest mean difference, in 8-bit levels, of images that count as the same."""

Result = Mapping[str, Any]


def show(console: Console, result: Result) -> None:
    """Print the result of `benchmark.bench`; a table that is wider than the terminal is not cut."""
    own = console.width
    unbounded = console.options.update(max_width=_PAGE_WIDTH)
    for part in parts(result, box.SIMPLE_HEAD):
        needed = 0 if isinstance(part, str) else Measurement.get(console, unbounded, part).maximum
        console.width = max(own, needed)  # else rich cuts columns, where a terminal wraps lines
        console.print(part, markup=False)
    console.width = own


def page(result: Result) -> str:
    """The result as a page of Markdown."""
    settings = result["settings"]
    text = f"# Throughput of {settings['bundle']}\n\nWritten by `{settings['command']}`.\n\n"
    return text + markdown(parts(result, box.MARKDOWN))


def markdown(content: Iterator[str | Table]) -> str:
    """Paragraphs and tables (with box.MARKDOWN) as Markdown, an empty line between them."""
    text = io.StringIO()
    console = Console(file=text, width=_PAGE_WIDTH, color_system=None)
    for part in content:
        console.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))
        text.write("\n")
    lines = (line.rstrip() for line in text.getvalue().split("\n"))
    return re.sub("\n{3,}", "\n\n", "\n".join(lines))


def parts(result: Result, form: box.Box) -> Iterator[str | Table]:
    """The paragraphs and tables of the report."""
    yield from about(result)
    yield speeds(result, form)
    if _on_gpu(result):
        yield gpu(result, form)
    yield stages(result, form)
    yield _legend(result)
    yield from arithmetic(result)
    yield from comparisons(result)
    yield from lacking(result)


def about(result: Result) -> Iterator[str]:
    """The machine, the versions, the settings, and what each system ran on."""
    settings = result["settings"]
    yield from on_machine(result["machine"])
    yield (
        f"{settings['bundle']}: {settings['solver']}, {settings['steps']} steps, guidance "
        f"{settings['guidance']:g}, {settings['backend']}, {settings['threads']} threads"
    )
    ran = {entry["system"]: entry["ran"] for entry in result["summary"]}
    yield "; ".join(
        f"{system} ran in {how['precision']} on {how['runtime']}, {how['device']}"
        + (f": {how['placement']}" if "placement" in how else "")
        for system, how in ran.items()
    )
    notes = ((e["system"], note) for e in result["summary"] for note in e["notes"])
    for system, note in dict.fromkeys(notes):
        yield f"Note of {system}: {note}"


def on_machine(machine: Mapping[str, Any]) -> Iterator[str]:
    """The machine of `machine.describe`, and its versions."""
    gpus = "".join(f", {gpu}" for gpu in machine["gpus"])
    ram = f", {machine['ram_bytes'] / 2**30:.0f} GiB" if machine["ram_bytes"] else ""
    yield f"{machine['cpu']}, {machine['cores']} cores{ram}{gpus}; {machine['date']}"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield f"{machine['system']}, Python {machine['python']}, {versions}"


def speeds(result: Result, form: box.Box) -> Table:
    """Images per second, whole and of the model alone, memory, and FLOP/s if they were counted."""
    counted, peak = result["flops"] is not None, result["peak"]
    table = right_aligned(form, "system", "batch", "images/s", "", "model only", "", "RAM")
    for name in ("TFLOP/s", *(["of peak"] if peak else [])) if counted else ():
        table.add_column(name, justify="right", no_wrap=True)
    for entry in result["summary"]:
        cells = [entry["system"], str(entry["batch"])]
        for key in ("images_per_second", "model_images_per_second"):
            cells += spread_of(entry[key])
        cells.append(megabytes(entry["peak_rss_bytes"]))
        achieved = entry["flops_per_second"]
        if counted:
            cells.append("" if achieved is None else number(achieved / 1e12))
            if peak:
                cells.append("" if achieved is None else share(achieved, peak["flops_per_second"]))
        add(table, cells)
    return table


def spread_of(spread: Mapping[str, float] | None) -> list[str]:
    """The median, and the extremes in brackets; empty where nothing was told."""
    if spread is None:
        return ["", ""]
    low, high = number(spread["min"]), number(spread["max"])
    return [number(spread["median"]), f"[{low}, {high}]"]


def share(found: float, peak: float) -> str:
    """Operations a second as a part of the peak's."""
    return f"{found / peak:.0%}" if found <= peak else "> 100%"


def gpu(result: Result, form: box.Box) -> Table:
    """What the GPU did: its time beside the host's, busy share, memory, power and energy."""
    table = right_aligned(
        *(form, "system", "batch", "ms an image", "device ms", "GPU busy", "GPU memory"),
        *("watts", "joules an image"),
    )
    for entry in result["summary"]:
        told, device, batch = entry["gpu"] or {}, entry["device"], entry["batch"]
        busy, watts, joules = (told.get(key) for key in ("busy", "watts", "joules_per_image"))
        cells = [
            entry["system"],
            str(batch),
            number(1000 * entry["seconds"]["median"] / batch),
            "" if device is None else number(1000 * device["median"] / batch),
            "" if busy is None else f"{busy:.0%}",
            megabytes(told.get("memory_bytes")),
            "" if watts is None else f"{watts:.0f}",
            "" if joules is None else number(joules),
        ]
        add(table, cells)
    return table


def stages(result: Result, form: box.Box) -> Table:
    """Milliseconds for an image in each stage, and the share of engine calls."""
    table = right_aligned(form, "system", "batch", *STAGES, "engines")
    for entry in result["summary"]:
        cells = [entry["system"], str(entry["batch"])]
        told = entry["model_images_per_second"] is not None
        for stage in STAGES:
            each = 1000 * entry["stages"][stage]["median"] / entry["batch"]
            cells.append(number(each) if told else "")
        in_engines = entry["engine_share"]
        cells.append(f"{in_engines['median']:.0%}" if in_engines else "")
        add(table, cells)
    return table


def comparisons(result: Result) -> Iterator[str]:
    """How fast synfer-rt is beside each peer, and whether both made the same images."""
    for entry in result["speedups"]:
        model = entry["model"]
        yield (
            f"Batch {entry['batch']}: {entry['system']} is {entry['whole']:.2f} times as fast as "
            f"{entry['peer']} from prompt to files"
            + ("." if model is None else f", {model:.2f} times in condition, denoise and decode.")
        )
    for entry in result["differences"]:
        verdict = "the same" if entry["mean"] <= _SAME else "NOT THE SAME: do not compare speeds"
        images, are, their = "images", "are", "their"
        if entry["images"] == 1:
            images, are, their = "image", "is", "its"
        yield (
            f"{entry['images']} {images} of {entry['peer']} and synfer-rt {are} {verdict}; {their} "
            f"pixels differ by {entry['mean']:.3f} of 255 on average, {entry['max']} at most."
        )


def lacking(result: Result) -> Iterator[str]:
    """What failed and what was left out."""
    for entry in result["failed"]:
        yield f"FAILED: {entry['section']}: {entry['why']}."
    for entry in result["left_out"]:
        yield f"Left out: {entry['section']}: {entry['why']}."


def _legend(result: Result) -> str:
    steps = result["settings"]["warm_up_steps"]
    said = (
        "Medians over the visits, in brackets the slowest and the fastest run. A run makes many "
        f"batches; a batch of {steps} steps and a whole batch warm up before it and do not count, "
        "unless a single batch takes long enough to be the run. `images/s` is from prompt to "
        "files: synfer-rt labels and writes, peers write with Pillow and do not label. `model "
        "only` is images/s of condition, denoise and decode; stages are ms per image, "
        "`prepare` and `write` those for which the engines waited; `engines` is the share of time "
        "inside engine calls; RAM is the peak of the process so far."
    )
    if not _on_gpu(result):
        return said
    clocks = {e["device"]["clock"] for e in result["summary"] if e["device"] is not None}
    sources = {e["gpu"]["source"] for e in result["summary"] if e["gpu"] is not None}
    said += (
        " GPU memory is what all processes used at most, less what was used before the system "
        "loaded; power and energy are those of the whole card."
    )
    if clocks:
        said += f" `device ms` is an image's time on the GPU, by {' or '.join(sorted(clocks))}."
    return said + (f" The GPU was read through {', '.join(sorted(sources))}." if sources else "")


def arithmetic(result: Result) -> Iterator[str]:
    """The operations for an image and the peak, if they were measured."""
    flops, peak = result["flops"], result["peak"]
    if flops is not None:
        counted = ", ".join(f"{name} {count / 1e9:.2f}" for name, count in flops.items())
        yield (
            f"GFLOP for an image, counted in the ONNX graphs: {counted} (denoisers a step). "
            "`TFLOP/s` is what condition, denoise and decode achieve"
            + (", `of peak` its share of the measured peak" if peak else "")
            + "; of a system that does not tell its stages, what the whole run achieves."
        )
    if peak is not None:
        yield (
            f"Peak: {peak['flops_per_second'] / 1e12:.3g} TFLOP/s, the product of two "
            f"{peak['dtype']} matrices of {peak['side']} x {peak['side']} on {peak['runtime']}, by "
            f"{peak['clock']}. A share above 100 % means that something else ran meanwhile."
        )


def _on_gpu(result: Result) -> bool:
    return any(e["gpu"] is not None or e["device"] is not None for e in result["summary"])


def right_aligned(form: box.Box, first: str, *others: str) -> Table:
    """An empty table whose columns after the first are numbers."""
    table = Table(box=form, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def add(table: Table, cells: Sequence[str]) -> None:
    """Append a row, whatever characters its cells have."""
    table.add_row(*map(Text, cells))  # names and intervals have brackets


def listed(points: Iterable[str]) -> str:
    """Points as a list in Markdown."""
    return "\n".join(f"- {point}" for point in points)


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    if 0 < abs(value) < 0.1:
        digits = 3
    return f"{value:.{digits}f}"


def megabytes(count: int | None) -> str:
    """Bytes in MB; empty where they are not known."""
    return "" if count is None else f"{count / 1e6:.0f} MB"
