"""Which plans of an earlier build are reused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

from synfer_rt.export import plans
from synfer_rt.export.engine import Built, Source
from synfer_rt.export.engines import Options, Recipe
from synfer_rt.export.staging import Staging
from synfer_rt.export.tensorrt import Compiled


def test_a_plan_for_another_gpu_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = ModuleType("tensorrt")
    library.__dict__["__version__"] = "10.0"
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    place = Staging(tmp_path / "out", tmp_path, None)
    (place.bundle / "tensorrt").mkdir(parents=True)
    (place.bundle / "decoder.onnx").touch()
    options = Options(targets=("onnx", "tensorrt"))
    source = Source(tmp_path)
    recipe = Recipe(source, place, options, {"image_size": (16, 16)}, {}, 4)

    def compile_plan(name: str, file: Path, out: Path, *_: Any, **__: Any) -> Compiled:
        (out / "tensorrt" / "decoder.plan").touch()
        return Compiled({"file": "tensorrt/decoder.plan", "precision": "fp32"}, 1.0, None)

    monkeypatch.setattr(plans, "compile_plan", compile_plan)
    made: list[Built] = []
    for gpu in ("sm89", "sm89", "sm120"):
        monkeypatch.setattr(plans, "check_options", lambda *_, gpu=gpu: [gpu])
        engine = {"file": "decoder.onnx", "build_key": "a", "precision": "fp32"}
        plans.make_plans(recipe, {"decoder": engine}, made.append)
    assert [plan.reused for plan in made] == [False, True, False]
