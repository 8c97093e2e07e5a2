"""The page of guides from ONNX networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="the experiments need synfer-rt[reference]")

import torch
from torch import nn

from reference.experiments import guide_errors, onnx_guides, steering
from reference.experiments import kinks as kinks_of


def row(name: str, error: float, plan: str = "compiled", tried: list | None = None) -> dict:
    errors = {"onnxruntime-cpu": 1e-6, "openvino-cpu": error, "float64": 3e-8, "PyTorch": 2e-6}
    clearance = tried[0][0] if tried else None
    facts = {"network": name, "form": "ONNX", "errors": errors, "plan": plan}
    return {**facts, "clearance": clearance, "tried": tried or []}


def test_errors_beyond_the_gate_and_missing_plans_are_counted() -> None:
    tried = [[2.5, 2e-6], [1.5, 3e-6], [0.25, 4e-3], [0.5, 1e-6]]
    rows = [row("ViT", 9e-6), row("MobileNetV2", 2e-5, "not compiled: x", tried)]
    text = "\n".join(onnx_guides.lines(rows))
    assert (
        "| ViT | Tiny/16 | 224 | ONNX | 1.0e-06 | 9.0e-06 | 3.0e-08 | 2.0e-06 | no kinks | "
        "compiled |" in text
    )
    assert "| 2.0e-06 | 2.5 | not compiled: x |" in text
    assert "3 of 4 errors are within the gate; 1 of 2 plans compile. Beyond the gate: Mob" in text
    assert "Of 4 images that were tried with networks that have kinks, 1 are clear, of" in text
    assert "Of the 3 others, 1 are, with errors up to 4.0e-03, and each of these has a unit" in text
    assert "within 0.25 rounding errors" in text


class Tenth(nn.Module):
    """An activation of a tenth of the pixels, which float32 rounds."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(x * 0.1)


@pytest.mark.parametrize(
    ("activation", "kinks"),
    [
        (nn.ReLU(), [0]),
        (nn.ReLU(inplace=True), [0]),
        (nn.PReLU(), [0]),
        (nn.ReLU6(), [0, 6]),
        (nn.Hardswish(), [-3, 3]),
        (nn.Hardsigmoid(), [-3, 3]),
    ],
)
def test_clearance_is_the_distance_from_the_nearest_kink(
    activation: nn.Module, kinks: list[float]
) -> None:
    images = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 40
    exact = images.double().numpy() * 0.1
    rounded = np.abs((images * 0.1).double().numpy() - exact).max((1, 2, 3))
    distances = np.min([np.abs(exact - kink) for kink in kinks], 0).min((1, 2, 3))
    found = kinks_of.clearance(Tenth(activation).requires_grad_(False), images)
    np.testing.assert_allclose(found, distances / rounded)


def test_windows_have_kinks_where_their_largest_are_equal() -> None:
    pixels = torch.tensor([[1.7, 0.3, -1.0], [0.9, 1.1, -2.0], [-1.0, -3.0, -0.5]])[None, None]
    rounding = np.abs((pixels * 0.1).double().numpy() - pixels.double().numpy() * 0.1).max()
    pooled = Tenth(nn.MaxPool2d(2, 1))
    # The largest two of the windows are 1.7 and 1.1, 1.1 and 0.3, 1.1 and 0.9, 1.1 and -0.5.
    found = kinks_of.clearance(pooled, pixels)
    np.testing.assert_allclose(found, 0.1 * (1.1 - 0.9) / 2 / rounding, rtol=1e-6)
    corner = pixels[:, :, 1:, 2:]  # two zeros after ReLU, of which neither has a derivative
    zeros = nn.Sequential(Tenth(nn.ReLU()), nn.MaxPool2d((2, 1)))
    alone = kinks_of.clearance(Tenth(nn.ReLU()), corner)
    np.testing.assert_array_equal(kinks_of.clearance(zeros, corner), alone)


def test_smooth_networks_have_no_kinks() -> None:
    assert kinks_of.clearance(nn.Sequential(nn.GELU(), nn.SiLU()), torch.ones(2, 3)).min() == np.inf


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
    monkeypatch.setattr(guide_errors, "_plan", lambda file, folder: "not compiled: in a test")
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
        assert one["clearance"] >= guide_errors.MARGIN
    strengths = [one["strength"] for one in found["steering"]["rows"]]
    assert strengths == [0, 0.1, 0.3, 1]
    assert (tmp_path / "out" / "onnx_guides.png").is_file()
