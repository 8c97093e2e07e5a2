"""A whole benchmark: what is measured is settled and checked, then measured and written."""

from __future__ import annotations

import json as json_format
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from synfer_rt.bench import estimates, measure, report, results
from synfer_rt.bench.results import Kept
from synfer_rt.bench.settings import Given, Settled, settle
from synfer_rt.errors import UserError


def bench(
    bundle: str | Path | None = None,
    *,
    quick: bool = False,
    seconds: float | None = None,
    batch: Sequence[int] | None = None,
    steps: int | None = None,
    solver: str | None = None,
    backend: str | Sequence[str] = "auto",
    threads: int | None = None,
    repeats: int | None = None,
    compare: Sequence[str] | None = None,
    checkpoint: str | Path | None = None,
    set_up: bool = False,
    size: tuple[int, int] | None = None,
    quality: Sequence[str] = (),
    variants: Sequence[Mapping[str, Any]] = (),
    resume: bool = False,
    json: str | Path | None = None,
    markdown: str | Path | None = None,
    progress: Callable[[int, int, str], None] = lambda number, count, section: None,
    remark: Callable[[str], None] = lambda sentence: None,
    show: Callable[[Mapping[str, Any]], None] = lambda result: None,
    command: str = "synfer_rt.bench.bench",
) -> dict[str, Any]:
    """Measure throughput, time per stage, memory and FLOP/s of a bundle, alone and against others.

    What the arguments up to `variants` mean, `settings.Given` says; every system is visited in
    turn, each time in a fresh process that runs many batches. `quick` fills a page in less than
    five minutes. Each of the bundle's qualities in `quality` is one of the `variants`.

    Returns the result as JSON values: `machine`, `settings`, `visits` (every number), `summary`
    (medians), `speedups`, `differences`, `flops` (for an image, by engine), `peak`, `failed` and
    `left_out`. It is written to the file `json`, and as a page to the file `markdown`, where these
    are given. The file `json` is also written after each visit, and with `resume` the visits that
    it has are not made again.

    `progress(number, count, section)` is called before each section, `remark` with a sentence on
    each backend, and `show` with the result before anything is written; `command` is what the
    result says it was made by. Raises UserError for an argument that cannot be used, before
    anything is measured, and if nothing could be measured; a section that fails ends no other.
    """
    files = {"json": json, "markdown": markdown}
    targets = {name: Path(file) for name, file in files.items() if file is not None}
    for name, file in targets.items():
        _check_writable(name, file)
    given = Given(
        *(bundle, quick, seconds, batch, steps, solver, backend, threads, repeats, compare),
        *(checkpoint, set_up, size, [*({"quality": name} for name in quality), *variants]),
    )
    if resume and json is None:
        raise UserError("`resume` goes on with the file `json`; name that file.")
    kept = Kept(targets.get("json"), resume, command)
    settled, measured = _measured(given, progress, remark, kept)
    result = results.result_of(settled, measured, command)
    show(result)
    for name, file in targets.items():
        text = report.page(result) if name == "markdown" else json_format.dumps(result, indent=1)
        results.write(name, file, text.rstrip("\n") + "\n")
    return result


def estimate(
    bundle: str | Path | None = None,
    *,
    quality: Sequence[str] = (),
    variants: Sequence[Mapping[str, Any]] = (),
    remark: Callable[[str], None] = lambda sentence: None,
    **settings: Any,
) -> list[str]:
    """How long `bench` would take with these arguments, as sentences: a visit each, and all.

    The peak and the operations of the engines are measured, which takes a minute for a large
    bundle. Raises UserError as `bench` does.
    """
    names = [field.name for field in fields(Given)]
    all_variants = [*({"quality": name} for name in quality), *variants]
    given: dict[str, Any] = {**dict.fromkeys(names), **settings}
    with TemporaryDirectory() as folder:
        settled = settle(
            Given(**{**given, "bundle": bundle, "variants": all_variants}), remark, Path(folder)
        )
    return list(estimates.sentences(settled))


def _measured(
    given: Given,
    progress: Callable[[int, int, str], None],
    remark: Callable[[str], None],
    kept: Kept,
) -> tuple[Settled, measure.Measured]:
    """What was to be measured, and what was; the time runs from here."""
    began = time.monotonic()
    with TemporaryDirectory() as folder:
        settled = settle(given, remark, Path(folder))
        left = None if settled.seconds is None else settled.seconds - (time.monotonic() - began)
        measured = measure.measure(
            *(settled.setup, settled.cases, settled.repeats, progress, left),
            *(kept.begun(settled), lambda measured: kept.keep(settled, measured)),
        )
    if not measured.visits:
        raise UserError(_nothing(measured))
    return settled, measured


def _nothing(measured: measure.Measured) -> str:
    """Why nothing was measured, as a sentence."""
    for entry in measured.failed:
        return f"Nothing could be measured, since {entry['section']} failed: {entry['why']}."
    return "Nothing could be measured, since the time was up; give more `seconds`."


def _check_writable(argument: str, file: Path) -> None:
    """A benchmark takes minutes: refuse a file that cannot be written before, not after."""
    try:
        device = file.exists() and not file.is_file()  # or a pipe, which is written as it is
        writable = not file.is_dir() and os.access(file if device else file.parent, os.W_OK)
    except OSError:  # such as a name that is too long
        writable = False
    if not writable:
        raise UserError(
            f"{file} cannot be written; give `{argument}` a file in a directory that exists and "
            "is yours."
        )
