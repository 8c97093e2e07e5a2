"""Variants of a bundle are judged on the same requests and set beside the first."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="judging needs synfer-rt[reference]")

import torch

from reference import classifiers, variants
from reference.evaluation import action_units

MINI = Path(__file__).parents[2] / "engines" / "synfer-mini"


def test_the_same_variant_twice_is_sampled_once_and_differs_by_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    for name in ("judge", "au-reader"):
        classifiers.save(classifiers.NETWORKS[name].build(), tmp_path, name)
    monkeypatch.setattr(action_units, "MAIN", ("AU12",))
    out, variant = tmp_path / "variants.md", f"{MINI},onnxruntime-cpu"
    options = ["--classifiers", tmp_path, "--out", out, "--work", tmp_path / "work"]
    options += ["--per-class", 1, "--faces", 2, "--threads", 1, "--variant", variant]
    options += ["--variant", variant]
    CliRunner().invoke(variants.main, [str(option) for option in options], catch_exceptions=False)
    rows = [line.split("|")[1:-1] for line in out.read_text().splitlines()[-2:]]
    assert rows[0] == rows[1] and rows[0][-1].strip() == "0.000"
    named = dict(zip(variants.COLUMNS, (cell.strip() for cell in rows[0]), strict=True))
    assert named["backend"] == "onnxruntime-cpu" and named["computed in"] == "fp32"
    assert named["same label"] == "100.0" and not named["photo-trained `fer`"]
    assert len(list((tmp_path / "work").iterdir())) == 2
