"""`synfer_rt.export.build_engines`: a bundle from plain arguments."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

from synfer_rt import load
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.errors import UserError
from synfer_rt.export import Built, Lora, build_engines
from synfer_rt.export.networks.guiding_classifier import ExpressionNet, NetConfig
from tests.export.tiny_checkpoint import save_classifier


def test_the_bundle_is_returned_opened(mini: Path, mini_bundle: Bundle, tmp_path: Path) -> None:
    out = Path(shutil.copytree(mini_bundle.path, tmp_path / "out"))
    save_classifier(tmp_path / "fer.onnx", channels=1, classes=7)
    built: list[Built] = []
    bundle = build_engines(
        str(mini),
        out,
        classifier=[tmp_path / "fer.onnx"],
        classifier_labels=["raf-db"],
        classifier_input=["24,grey"],
        report=built.append,
    )
    assert {engine.name: engine.reused for engine in built}["denoiser"]
    assert set(bundle.classifiers) == {"classifier.fer"} and bundle.path == out
    assert open_bundle(out).bundle_hash == bundle.bundle_hash


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["guide", "guide_folder"])
def test_a_classifier_of_ones_own_guides(
    mini: Path, mini_bundle: Bundle, tmp_path: Path, kind: str
) -> None:
    out = Path(shutil.copytree(mini_bundle.path, tmp_path / "out"))
    save_classifier(tmp_path / "fer.onnx", channels=1, classes=7)
    ExpressionNet(NetConfig(3, 16, 4, (8, 8), "raf-db")).save(tmp_path / "fer")
    guides = {
        "guide": (tmp_path / "fer.onnx", "raf-db", "24,grey"),
        "guide_folder": tmp_path / "fer",
    }
    given: Any = {kind: guides[kind]}
    built: list[Built] = []
    bundle = build_engines(mini, out, **given, report=built.append)
    assert [engine.name for engine in built if not engine.reused] == ["guide.text"]
    file = {"guide": "fer.onnx", "guide_folder": "model.safetensors"}[kind]
    assert "guide.text" in bundle.engines and file in bundle.manifest["source"]["sha256"]
    model = load(bundle.path, backend="onnxruntime-cpu", threads=1)
    plain, steered = (
        model.sample(count=2, labels=["happy"], steps=2, seed=1, **settings)
        for settings in ({}, {"semantic_guidance": 0.5, "semantic_form": "text"})
    )
    for one, other in zip(plain, steered, strict=True):
        assert (one.image != other.image).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "fp8"}, "`precision` must be one of fp32, fp16, int8, got 'fp8'"),
        ({"target": "tensort"}, "got 'tensort'; the nearest is tensorrt"),
        ({"target": ["onnx", "rocm"]}, "`target` must be one of onnx, openvino, cuda, tensorrt"),
        ({"target": ["cuda"], "precision": "int8"}, "a bundle of them cannot have CUDA engines"),
        ({"compute_capability": ["sm89"]}, 'add `target="tensorrt-rtx"`'),
        ({"batch": (8, 4, 16)}, "such as `batch=(1, 8, 32)`; got (8, 4, 16)"),
        ({"batch": (0, 1, 2)}, "at least 1 and in this order"),
        ({"sizes": (512, 256)}, "such as `sizes=(256, 768)`; got (512, 256)"),
        ({"sizes": (256, 256)}, "`sizes` must be the smallest and the largest edge"),
        ({"tolerance": 0}, "`tolerance` must be a number above 0, got 0."),
        ({"jobs": 0}, "`jobs` must be a whole number of at least 1, got 0"),
        ({"classifier": ["x.onnx"]}, "got 1, 0 and 0 of them"),
        ({"guide": ("x.onnx", "raf-db", "large,rgb")}, "`guide` 'large,rgb' cannot be read"),
        (
            {"guide": ("x.onnx", "raf-db", "24,grey"), "sizes": (16, 64)},
            "`guide` takes images of one size; leave out `sizes`",
        ),
        ({"guide": (".", "raf-db", "24,grey")}, "is a folder; give it as `guide_folder`"),
        ({"guide_folder": "x.onnx"}, "x.onnx is none; give an ONNX file as `guide`"),
        ({"guide_folder": ".", "sizes": (16, 64)}, "`guide_folder` takes images of one size"),
        (
            {"guide_folder": ".", "guide": ("x.onnx", "raf-db", "24,grey")},
            "give `guide` or `guide_folder`, not both",
        ),
        ({"lora": [Lora(Path("none.safetensors"), 0.5)]}, "give its file as `lora`"),
        ({"au_adapter": "none.safetensors"}, "give its file as `au_adapter`"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(
    plain_checkpoint: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        build_engines(plain_checkpoint, tmp_path / "out", **arguments)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_bundle_for_a_checkpoint_is_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a bundle; .*`synfer_rt\.export\.add_cuda_engines`"):
        build_engines(tiny_bundle.path, tmp_path / "out", target="cuda")
