"""What a benchmark prints."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from synfer_rt.bench import report
from synfer_rt.bench.systems import STAGES

RESULT: dict[str, Any] = {
    "machine": {
        **{"cpu": "x86 [bold]", "cores": 2, "ram_bytes": None, "gpus": [], "date": "today"},
        **{"python": "3.12", "versions": {"numpy": "2"}},
    },
    "settings": {
        **{"bundle": "faces [/v2] 1.0", "solver": "ddim", "steps": 4},
        **{"backend": "onnxruntime-cpu", "threads": 1},
    },
    "summary": [],
    "speedups": [],
    "differences": [],
}


def spread(value: float) -> dict[str, float]:
    return {"median": value, "min": value / 2, "max": value * 2}


def test_the_page_is_markdown_with_a_row_for_each_system_and_batch():
    entry = {
        **{"system": "synfer-rt", "batch": 64, "peak_rss_bytes": 673e6, "gpu_bytes": None},
        **{"images_per_second": spread(8.0), "model_images_per_second": spread(9.0)},
        "stages": {stage: spread(0.64) for stage in STAGES},
        "engine_share": spread(0.99),
    }
    settings = {**RESULT["settings"], "command": "synfer-rt bench --batch 64"}
    text = report.page({**RESULT, "settings": settings, "summary": [entry]})
    assert text.startswith("# Throughput of faces [/v2] 1.0\n\nWritten by `synfer-rt bench --batch")
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in text.split("\n") if "|" in line]
    assert rows[0][:3] == ["system", "batch", "images/s"] and set("".join(rows[1])) == {"-"}
    assert rows[2] == ["synfer-rt", "64", "8.00", "[4.00, 16.0]", "9.00", "[4.50, 18.0]", "673 MB"]
    assert rows[5] == ["synfer-rt", "64", *["10.0"] * len(STAGES), "99%"]


def test_names_in_brackets_are_printed_as_they_are():
    said = io.StringIO()
    report.show(Console(file=said, width=160), RESULT)
    assert "x86 [bold], 2 cores" in said.getvalue()
    assert "faces [/v2] 1.0: ddim" in said.getvalue()
