"""The measured part of docs/results/gpu.md, written from the JSON of a benchmark on a GPU.

    synfer-rt bench --quick --json docs/results/gpu.json
    python -m synfer_rt.bench.gpu_page docs/results/gpu.json docs/results/gpu.md

The rest of the page stays as it is. What is written stands between two comments of the page,
BEGIN and END.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich import box

from synfer_rt.bench import report
from synfer_rt.bench.results import FORMAT
from synfer_rt.commands.options import LocalPath
from synfer_rt.data.writers.atomic import write_whole
from synfer_rt.errors import UserError

BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
BATCH = 256
"""The batch at which the aims hold."""
AIMS = {"diffusers-fp16": 2.0, "diffusers-fp16-compiled": 1.2}
"""How many times as fast as each peer synfer-rt shall be, from prompt to files."""
BUSY = 0.9
"""The share of a run in which the GPU shall be busy."""

Result = Mapping[str, Any]


def measured(result: Result) -> str:
    """The measured part as Markdown. Raises UserError for what no GPU has measured."""
    if result.get("format") != FORMAT:
        raise UserError(
            f"It is no result of this release's `bench` (format {FORMAT}); measure again with "
            "`synfer-rt bench --json`."
        )
    if not any(entry["gpu"] for entry in result["summary"]):
        raise UserError("No GPU has measured it; run `synfer-rt bench` on a machine with one.")
    machine = result["machine"]
    card = ", ".join(machine["gpus"]) or "a GPU"
    head = f"## {card}, {machine['date'][:10]}\n\nWritten by `{result['settings']['command']}`.\n\n"
    aims = "\n".join(f"- {line}" for line in _aims(result))
    tables = report.markdown(report.parts(result, box.MARKDOWN))
    return f"{head}{aims}\n\n{tables.strip()}\n"


def _aims(result: Result) -> Iterator[str]:
    """What was aimed at, and what came out."""
    found = {
        (entry["peer"], entry["batch"]): entry["whole"]
        for entry in result["speedups"]
        if entry["system"] == "synfer-rt"
    }
    for peer, aim in AIMS.items():
        speedup = found.get((peer, BATCH))
        came = "not measured" if speedup is None else f"{speedup:.2f}, {_verdict(speedup >= aim)}"
        yield f"Speed beside {peer} at batch {BATCH}, of at least {aim:g} times: {came}."
    own = {entry["batch"]: entry["gpu"] for entry in result["summary"] if _is_own(entry)}
    busy = (own.get(BATCH) or {}).get("busy")
    came = "not measured" if busy is None else f"{busy:.0%}, {_verdict(busy > BUSY)}"
    yield f"GPU busy at batch {BATCH}, more than {BUSY:.0%} of a run: {came}."


def _is_own(entry: Result) -> bool:
    return entry["system"] == "synfer-rt"


def _verdict(reached: bool) -> str:
    return "reached" if reached else "missed"


def filled(page: str, part: str) -> str:
    """The page with `part` between its comments. Raises UserError for a page without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"The page has no line {BEGIN} with a line {END} after it; add both.")
    return f"{before}{BEGIN}\n\n{part.strip()}\n\n{END}{after}"


@click.command()
@click.argument("result", type=LocalPath())
@click.argument("page", type=LocalPath())
def main(result: Path, page: Path) -> None:
    """Write what RESULT, the JSON of a benchmark, measured on a GPU into PAGE."""
    try:
        part = measured(json.loads(result.read_text()))
        write_whole(page, filled(page.read_text(), part).encode())
    except (UserError, OSError, ValueError) as error:
        raise click.UsageError(f"{page} was not written from {result}: {error}") from None


if __name__ == "__main__":
    main()
