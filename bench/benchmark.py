"""A whole benchmark: what is measured is settled and checked, then measured and written."""

from __future__ import annotations

import importlib.util
import json as json_format
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from synfer_rt.bench import machine, measure, report, summary
from synfer_rt.bench.gpu_monitor import open_meter
from synfer_rt.bench.peers import PACKAGES
from synfer_rt.bench.settings import Given, Settled, settle
from synfer_rt.data.writers.atomic import write_whole
from synfer_rt.errors import UserError
from synfer_rt.jobs.diagnosis import RUNTIMES

FORMAT = 2
"""Of the JSON that a benchmark is written as."""

_PACKAGES = (
    "synfer-rt",
    "numpy",
    *RUNTIMES,
    *("nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-cublas-cu12", "nvidia-cublas"),
    *("cuda-python", "nvidia-ml-py"),
)


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
    json: str | Path | None = None,
    markdown: str | Path | None = None,
    progress: Callable[[int, int, str], None] = lambda number, count, section: None,
    remark: Callable[[str], None] = lambda sentence: None,
    show: Callable[[Mapping[str, Any]], None] = lambda result: None,
    command: str = "synfer_rt.bench.bench",
) -> dict[str, Any]:
    """Measure throughput, time per stage, memory and FLOP/s of a bundle, alone and against others.

    What the arguments up to `checkpoint` mean, `settings.Given` says; every system is visited in
    turn, each time in a fresh process that runs many batches. `quick` fills a page in less than
    five minutes.

    Returns the result as JSON values: `machine`, `settings`, `visits` (every number), `summary`
    (medians), `speedups`, `differences`, `flops` (for an image, by engine), `peak`, `failed` and
    `left_out`. It is written to the file `json`, and as a page to the file `markdown`, where these
    are given.

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
        checkpoint,
    )
    settled, measured = _measured(given, progress, remark)
    result = _result(settled, measured, command)
    show(result)
    for name, file in targets.items():
        text = report.page(result) if name == "markdown" else json_format.dumps(result, indent=1)
        _write(name, file, text.rstrip("\n") + "\n")
    return result


def _measured(
    given: Given, progress: Callable[[int, int, str], None], remark: Callable[[str], None]
) -> tuple[Settled, measure.Measured]:
    """What was to be measured, and what was; the time runs from here."""
    began = time.monotonic()
    with TemporaryDirectory() as folder:
        settled = settle(given, remark, Path(folder))
        left = None if settled.seconds is None else settled.seconds - (time.monotonic() - began)
        measured = measure.measure(settled.setup, settled.cases, settled.repeats, progress, left)
    if not measured.visits:
        raise UserError(_nothing(measured))
    return settled, measured


def _result(settled: Settled, measured: measure.Measured, command: str) -> dict[str, Any]:
    packages = (*_PACKAGES, *(PACKAGES if settled.peers else ()))
    return {
        "format": FORMAT,
        "machine": machine.describe(settled.setup.threads, packages),
        "settings": settled.described(command),
        "visits": measured.visits,
        **summary.summary_of(measured.visits, measured.images, measured.flops, settled.setup.steps),
        "flops": measured.flops,
        "peak": measured.peak,
        "failed": measured.failed,
        "left_out": [*settled.left_out, *_untold(settled), *measured.left_out],
    }


def _nothing(measured: measure.Measured) -> str:
    """Why nothing was measured, as a sentence."""
    for entry in measured.failed:
        return f"Nothing could be measured, since {entry['section']} failed: {entry['why']}."
    return "Nothing could be measured, since the time was up; give more `seconds`."


def _untold(settled: Settled) -> list[dict[str, str]]:
    """What is not known of the GPU for lack of a package or of the driver."""
    if not settled.setup.on_gpu or importlib.util.find_spec("pynvml") is not None:
        return []
    if open_meter() is None:
        return [
            {
                "section": "busy share, memory, power and energy of the GPU",
                "why": "neither nvidia-ml-py nor nvidia-smi is there; run "
                "`pip install nvidia-ml-py`",
            }
        ]
    return [
        {
            "section": "energy as the GPU counts it",
            "why": "nvidia-ml-py is not installed, so nvidia-smi was read twice a second; run "
            "`pip install nvidia-ml-py`",
        }
    ]


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


def _write(argument: str, file: Path, text: str) -> None:
    try:
        if file.exists() and not file.is_file():  # such as /dev/stdout
            file.write_bytes(text.encode())
        else:
            write_whole(file, text.encode())
    except OSError as error:
        raise UserError(
            f"{file} cannot be written ({error.strerror}); give `{argument}` another file."
        ) from None
