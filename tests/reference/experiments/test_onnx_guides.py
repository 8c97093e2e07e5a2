"""The page of guides from ONNX networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="the experiments need synfer-rt[reference]")

from reference.experiments import onnx_guides, steering


def row(name: str, error: float, plan: str = "compiled") -> dict:
    errors = {"onnxruntime-cpu": 1e-6, "openvino-cpu": error, "PyTorch": 2e-6}
    return {"network": name, "form": "ONNX", "errors": errors, "plan": plan}


def test_errors_beyond_the_gate_and_missing_plans_are_counted() -> None:
    text = "\n".join(onnx_guides.lines([row("ViT", 9e-6), row("Swin", 2e-5, "not compiled: x")]))
    assert "| ViT | Tiny/16 | 224 | ONNX | 1.0e-06 | 9.0e-06 | 2.0e-06 | compiled |" in text
    assert "3 of 4 errors are within the gate; 1 of 2 plans compile." in text


def test_a_gain_is_paired() -> None:
    before, after = np.arange(200) % 2 == 0, np.arange(200) % 2 == 0
    assert steering.paired_gain(after, before) == (0, 0)
    after = np.ones(200, bool)
    gain, half = steering.paired_gain(after, before)
    # The deviation of a change that is 1 in one case of two, over 200 cases.
    assert gain == 0.5 and half == pytest.approx(1.96 * 0.5 / 200**0.5, rel=0.1)


@pytest.mark.slow
def test_a_network_is_exact_and_steers(
    student_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped bundle, whose guide is in a folder, stands in for one built of an ONNX file."""
    only = {"ResNet-18": onnx_guides.ARCHITECTURES["ResNet-18"]}
    monkeypatch.setattr(onnx_guides, "ARCHITECTURES", only)
    monkeypatch.setattr(onnx_guides, "_plan", lambda file, folder: "not compiled: in a test")
    monkeypatch.setattr(steering, "guided_sampler", lambda setting: setting.sampler)
    given = dict(zip(student_options[::2], student_options[1::2], strict=True))
    given.pop("--per-class")
    options = [text for pair in given.items() for text in pair] + ["--images", "8"]
    result = CliRunner().invoke(onnx_guides.main, options, catch_exceptions=False)
    assert result.exit_code == 0
    found = json.loads((tmp_path / "out" / "onnx_guides.json").read_text())
    assert [one["form"] for one in found["rows"]] == ["ONNX", "saved folder"]
    for one in found["rows"]:
        assert max(one["errors"].values()) < onnx_guides.GATE
    strengths = [one["strength"] for one in found["steering"]["rows"]]
    assert strengths == [0, 0.1, 0.3, 1]
    assert (tmp_path / "out" / "onnx_guides.png").is_file()
