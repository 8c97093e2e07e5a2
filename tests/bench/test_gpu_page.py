"""The page of GPU results, from the JSON of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from synfer_rt.bench import gpu_page
from synfer_rt.errors import UserError
from tests.bench.test_report import ON_GPU, RESULT, rows

PAGE = "# On GPUs\n\nBefore.\n\n<!-- measured -->\n\nSTALE\n\n<!-- /measured -->\n\nAfter.\n"


def result(*, batch: int = 256, busy: float = 0.93, whole: float = 2.5) -> dict[str, Any]:
    (entry,) = ON_GPU["summary"]
    return {
        **ON_GPU,
        "format": 3,
        "machine": {
            **ON_GPU["machine"],
            **{"gpus": ["NVIDIA H200, 141 GB, 580.1"], "date": "2026-11-30T06:00:00+00:00"},
        },
        "summary": [{**entry, "batch": batch, "gpu": {**entry["gpu"], "busy": busy}}],
        "speedups": [
            {"system": system, "peer": "diffusers-fp16", "batch": 256, "whole": times, "model": 1.0}
            for system, times in (("synfer-rt", whole), ("synfer-rt fast", 4 * whole))
        ],
    }


def test_the_page_keeps_what_stands_around_the_measured_part():
    once = gpu_page.filled(PAGE, gpu_page.measured(result()))
    assert once.startswith("# On GPUs\n\nBefore.\n\n<!-- measured -->\n\n## NVIDIA H200, 141 GB")
    assert once.endswith("\n\n<!-- /measured -->\n\nAfter.\n") and "STALE" not in once
    assert gpu_page.filled(once, gpu_page.measured(result())) == once


def test_the_measured_part_names_machine_date_command_and_every_table():
    part = gpu_page.measured(result())
    assert "## NVIDIA H200, 141 GB, 580.1, 2026-11-30\n\nWritten by `synfer-rt bench" in part
    heads = [row for row in rows(part) if row[0] == "system"]
    assert ["images/s" in heads[0], "GPU busy" in heads[1], "denoise" in heads[2]] == [True] * 3


@pytest.mark.parametrize(("whole", "busy"), [(2.0, 0.91), (1.99, 0.9)])
def test_what_was_aimed_at_is_held_against_what_came_out(whole: float, busy: float):
    part = gpu_page.measured(result(whole=whole, busy=busy))
    verdict = "reached" if whole == 2.0 else "missed"
    assert (
        f"beside diffusers-fp16 at batch 256, of at least 2 times: {whole:.2f}, {verdict}." in part
    )
    assert f"more than 90% of a run: {busy:.0%}, {verdict}." in part
    assert "diffusers-fp16-compiled at batch 256, of at least 1.2 times: not measured." in part


def test_another_batch_proves_no_aim():
    part = gpu_page.measured(result(batch=64))
    assert "GPU busy at batch 256, more than 90% of a run: not measured." in part


def test_what_no_gpu_measured_is_refused():
    with pytest.raises(UserError, match="No GPU has measured it"):
        gpu_page.measured({**RESULT, "format": 3})
    with pytest.raises(UserError, match="format 3"):
        gpu_page.measured({**RESULT, "format": 1})
    with pytest.raises(UserError, match="no line <!-- measured -->"):
        gpu_page.filled("# Page", "part")


def test_the_command_writes_the_page(tmp_path: Path):
    numbers, page = tmp_path / "gpu.json", tmp_path / "gpu.md"
    numbers.write_text(json.dumps(result()))
    page.write_text(PAGE)
    done = CliRunner().invoke(gpu_page.main, [str(numbers), str(page)])
    assert done.exit_code == 0, done.output
    assert "reached" in page.read_text()
    numbers.write_text("{")
    done = CliRunner().invoke(gpu_page.main, [str(numbers), str(page)])
    assert done.exit_code == 2 and "was not written" in done.output
    assert "reached" in page.read_text()
