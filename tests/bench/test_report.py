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
        **{"python": "3.12", "versions": {"numpy": "2"}, "system": "Linux"},
    },
    "settings": {
        **{"bundle": "faces [/v2] 1.0", "solver": "ddim", "steps": 4, "guidance": 2.5},
        **{"backend": "onnxruntime-cpu", "threads": 1, "warm_up_steps": 2},
        "command": "synfer-rt bench --batch 64",
    },
    **{"summary": [], "speedups": [], "differences": [], "failed": [], "left_out": []},
    **{"flops": None, "peak": None},
}


def spread(value: float) -> dict[str, float]:
    return {"median": value, "min": value / 2, "max": value * 2}


ENTRY: dict[str, Any] = {
    **{"system": "synfer-rt", "batch": 64, "peak_rss_bytes": 673e6, "gpu": None, "device": None},
    **{"images_per_second": spread(8.0), "model_images_per_second": spread(9.0)},
    "stages": {stage: spread(0.64) for stage in STAGES},
    "seconds": spread(0.64),
    "engine_share": spread(0.99),
    "flops_per_second": None,
    "settings": {},
    "ran": {"precision": "fp32", "runtime": "onnxruntime 1", "device": "cpu"},
    "notes": ["guide.text runs without CUDA graphs."],
}
SPEEDUP = {"batch": 256, "whole": 2.345, "model": 1.5}
PEAK = {
    **{"flops_per_second": 40e12, "dtype": "float16", "side": 8192, "clock": "CUDA events"},
    "runtime": "torch 2",
}
ON_GPU: dict[str, Any] = {
    **RESULT,
    "summary": [
        {
            **ENTRY,
            "flops_per_second": 10e12,
            "device": {"clock": "CUDA events", **spread(0.32)},
            "gpu": {
                **{"busy": 0.934, "memory_bytes": 3e9, "watts": 412.4, "source": "NVML"},
                "joules_per_image": 0.06,
            },
        }
    ],
    "flops": {"conditioner": 80e6, "denoiser": 1.7e9},
    "peak": PEAK,
}


def rows(text: str) -> list[list[str]]:
    """The cells of all tables of a page."""
    return [[c.strip() for c in line.split("|")[1:-1]] for line in text.split("\n") if "|" in line]


def test_the_page_is_markdown_with_a_row_for_each_system_and_batch():
    text = report.page({**RESULT, "summary": [ENTRY]})
    assert text.startswith("# Throughput of faces [/v2] 1.0\n\nWritten by `synfer-rt bench --batch")
    cells = rows(text)
    assert cells[0][:3] == ["system", "batch", "images/s"] and set("".join(cells[1])) == {"-"}
    assert cells[2] == ["synfer-rt", "64", "8.00", "[4.00, 16.0]", "9.00", "[4.50, 18.0]", "673 MB"]
    assert cells[5] == ["synfer-rt", "64", *["10.0"] * len(STAGES), "99%"]
    assert "synfer-rt ran in fp32 on onnxruntime 1, cpu" in text
    assert "Note of synfer-rt: guide.text runs without CUDA graphs." in text


def test_a_gpu_has_a_table_of_its_own():
    text = report.page(ON_GPU)
    cells = rows(text)
    assert cells[2][-2:] == ["10.0", "25%"]  # TFLOP/s, of the peak
    slow = {**PEAK, "flops_per_second": 9e12}  # below what the engines reached
    assert rows(report.page({**ON_GPU, "peak": slow}))[2][-1] == "> 100%"
    told = dict(zip(cells[3], cells[5], strict=True))
    assert told == {
        **{"system": "synfer-rt", "batch": "64", "ms an image": "10.0", "device ms": "5.00"},
        **{"GPU busy": "93%", "GPU memory": "3000 MB", "watts": "412", "joules an image": "0.060"},
    }
    assert "Peak: 40 TFLOP/s, the product of two float16 matrices of 8192 x 8192 on torch 2" in text
    assert "conditioner 0.08, denoiser 1.70 (denoisers a step)" in text
    assert "an image's time on the GPU, by CUDA events. The GPU was read through NVML." in text


def test_what_a_gpu_does_not_tell_stays_empty():
    (entry,) = ON_GPU["summary"]
    told = {**entry["gpu"], **dict.fromkeys(("busy", "watts", "joules_per_image", "memory_bytes"))}
    result = {**ON_GPU, "summary": [{**entry, "device": None, "gpu": told}], "peak": None}
    cells = rows(report.page(result))
    assert cells[5][3:] == [""] * 5
    assert cells[0][-1] == "TFLOP/s"


def test_a_system_that_does_not_tell_its_stages_has_its_speed_alone():
    untold = {**ENTRY, "model_images_per_second": None, "flops_per_second": 5e12}
    cells = rows(report.page({**ON_GPU, "summary": [untold]}))
    assert cells[2] == [
        *("synfer-rt", "64", "8.00", "[4.00, 16.0]", "", "", "673 MB", "5.00", "12%")
    ]
    assert cells[5] == ["synfer-rt", "64", *[""] * len(STAGES), "99%"]


def test_comparisons_failures_and_what_is_left_out_are_told():
    text = report.page(
        {
            **RESULT,
            "speedups": [
                {**SPEEDUP, "system": "synfer-rt", "peer": "diffusers-fp16"},
                {**SPEEDUP, "system": "synfer-rt fast", "peer": "synfer-rt 0.1.0", "model": None},
            ],
            "differences": [
                {"peer": "diffusers-fp16", "images": 8, "mean": 0.5, "max": 9},
                {"peer": "optimum-intel", "images": 1, "mean": 0.0, "max": 1},
            ],
            "failed": [{"section": "diffusers-bf16, batch 256", "why": "no memory"}],
            "left_out": [{"section": "diffusers", "why": "it is not installed"}],
        }
    )
    assert (
        "Batch 256: synfer-rt is 2.35 times as fast as diffusers-fp16 from prompt to files, 1.50 "
        "times in condition, denoise and decode."
    ) in text
    assert (
        "Batch 256: synfer-rt fast is 2.35 times as fast as synfer-rt 0.1.0 from prompt to files."
        in text
    )
    assert "8 images of diffusers-fp16 and synfer-rt are the same; their pixels differ" in text
    assert "1 image of optimum-intel and synfer-rt is the same; its pixels differ" in text
    assert "FAILED: diffusers-bf16, batch 256: no memory." in text
    assert "Left out: diffusers: it is not installed." in text


def test_names_in_brackets_are_printed_as_they_are():
    said = io.StringIO()
    report.show(Console(file=said, width=160), RESULT)
    assert "x86 [bold], 2 cores" in said.getvalue()
    assert "faces [/v2] 1.0: ddim" in said.getvalue()


def test_a_narrow_terminal_cuts_no_table():
    said = io.StringIO()
    report.show(Console(file=said, width=40, force_terminal=True, color_system=None), ON_GPU)
    assert "…" not in said.getvalue()
    (row,) = (line for line in said.getvalue().split("\n") if "[4.50, 18.0]" in line)
    assert "25%" in row
