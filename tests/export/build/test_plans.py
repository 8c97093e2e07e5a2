"""Which plans of an earlier build are reused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

from synfer_rt.errors import UserError
from synfer_rt.export.build import plans
from synfer_rt.export.build.all_engines import Options, Recipe
from synfer_rt.export.build.entries import Built
from synfer_rt.export.build.one_engine import Source
from synfer_rt.export.build.staging import Staging
from synfer_rt.export.tensorrt.compile import Compiled


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A build of plans for a GPU of sm89, by a TensorRT that is not there."""
    library = ModuleType("tensorrt")
    library.__dict__["__version__"] = "10.0"
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    monkeypatch.setattr(plans, "check_options", lambda *_: ["sm89"])
    place = Staging(tmp_path / "out", tmp_path, None)
    (place.bundle / "tensorrt").mkdir(parents=True)
    for name in ("decoder", "encoder"):
        (place.bundle / f"{name}.onnx").touch()
    options = Options(targets=("onnx", "tensorrt"))
    return Recipe(Source(tmp_path), place, options, {"image_size": (16, 16)}, {}, 4)


def engines(*names: str) -> dict[str, Any]:
    return {n: {"file": f"{n}.onnx", "build_key": n, "precision": "fp32"} for n in names}


def compile_plan(name: str, file: Path, out: Path, *_: Any, **__: Any) -> Compiled:
    (out / "tensorrt" / f"{name}.plan").touch()
    return Compiled({"file": f"tensorrt/{name}.plan", "precision": "fp32"}, 1.0, None)


def test_a_plan_for_another_gpu_is_compiled_again(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "compile_plan", compile_plan)
    made: list[Built] = []
    for gpu in ("sm89", "sm89", "sm120"):
        monkeypatch.setattr(plans, "check_options", lambda *_, gpu=gpu: [gpu])
        plans.make_plans(recipe, engines("decoder"), made.append)
    assert [plan.reused for plan in made] == [False, True, False]


def test_a_plan_before_a_failure_stays(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, *rest: Any, **options: Any) -> Compiled:
        if name == "encoder":
            raise UserError("tensorrt did not compile the encoder")
        return compile_plan(name, *rest, **options)

    monkeypatch.setattr(plans, "compile_plan", fail)
    made: list[Built] = []
    with pytest.raises(UserError, match="did not compile the encoder"):
        plans.make_plans(recipe, engines("decoder", "encoder"), made.append)
    monkeypatch.setattr(plans, "compile_plan", compile_plan)
    plans.make_plans(recipe, engines("decoder", "encoder"), made.append)
    found = [(plan.name, plan.reused) for plan in made]
    decoder, encoder = "decoder (tensorrt)", "encoder (tensorrt)"
    assert found == [(decoder, False), (decoder, True), (encoder, False)]
