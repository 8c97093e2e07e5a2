"""The page of peers, from the JSON of benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from synfer_rt.bench import peers_page
from synfer_rt.bench.systems import STAGES
from synfer_rt.errors import UserError
from tests.bench.test_report import ENTRY, PEAK, RESULT, rows, spread

WORK = {"condition": 1e9, "denoise": 10e9, "decode": 5e9}
STAGE_TIMES = {stage: spread(0.0) for stage in STAGES} | {"denoise": spread(6.4)}
OWN = {**ENTRY, "seconds": spread(12.8), "stages": STAGE_TIMES, "flops": WORK}
RELEASE = {
    **{**OWN, "system": "synfer-rt 0.1.0 (old)", "settings": None},
    **{"model_images_per_second": None, "flops": None},
}


def result(*entries: dict[str, Any], **changed: Any) -> dict[str, Any]:
    settings = {**RESULT["settings"], "size": [512, 768]}
    peak = {**PEAK, "flops_per_second": 1e12}
    whole = {**RESULT, "format": 3, "settings": settings, "summary": list(entries), "peak": peak}
    return {**whole, **changed}


def test_each_system_and_stage_has_a_row_with_its_part_of_the_peak():
    text = peers_page.page([result(OWN, RELEASE)])
    assert "## faces [/v2] 1.0, 512x768 pixels, 4 steps" in text
    head, _, whole, denoise, release = rows(text)
    assert head[:4] == ["system", "batch", "stage", "ms an image"] and head[-2:] == [
        "of peak",
        "RAM",
    ]
    assert whole == [
        *("synfer-rt", "64", "all", "200", "[100, 400]", "5.00", "16.0", "0.080", "8%", "673 MB")
    ]
    assert denoise == [
        *("synfer-rt", "64", "denoise", "100", "[50.0, 200]", "10.0", "10.0", "0.10", "10%", "")
    ]
    assert release[:4] == ["synfer-rt 0.1.0 (old)", "64", "all", "200"]
    assert release[6:9] == ["", "", ""]  # its operations are not known


def test_what_could_not_be_compared_is_on_the_page():
    why = {"section": "optimum-intel", "why": "it runs plain Stable Diffusion alone"}
    text = peers_page.page([result(OWN, peak=None), result(OWN, left_out=[why])])
    assert text.count("\n## ") == 2
    assert "Left out: optimum-intel: it runs plain Stable Diffusion alone." in text


def test_another_format_is_refused():
    with pytest.raises(UserError, match=r"no result of this release's `bench` \(format 3\)"):
        peers_page.page([result(OWN, format=2)])


def test_the_command_writes_the_page(tmp_path: Path):
    source, page = tmp_path / "bench.json", tmp_path / "peers.md"
    source.write_text(json.dumps(result(OWN)))
    done = CliRunner().invoke(peers_page.main, [str(page), str(source)])
    assert done.exit_code == 0 and page.read_text().startswith("# synfer-rt beside")
    source.write_text("[]")
    done = CliRunner().invoke(peers_page.main, [str(page), str(source)])
    assert done.exit_code == 2 and "was not written" in done.output
