"""What a benchmark prints."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from synfer_rt.bench import report

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


def test_names_in_brackets_are_printed_as_they_are():
    said = io.StringIO()
    report.show(Console(file=said, width=160), RESULT)
    assert "x86 [bold], 2 cores" in said.getvalue()
    assert "faces [/v2] 1.0: ddim" in said.getvalue()
