"""Checkpoints and ONNX files are read however their files came to lie where they lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
from onnx import numpy_helper

from synfer_rt.bundle import Bundle
from synfer_rt.export.build.whole_bundle import Source, build_bundle
from synfer_rt.export.onnx import model_file
from tests.cache_layouts import LAYOUTS, laid_out
from tests.export.tiny_checkpoint import save_classifier


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, `net.onnx`, whose weights lie in two files beside it."""
    folder = tmp_path_factory.mktemp("networks") / "net"
    folder.mkdir()
    save_classifier(folder / "net.onnx", 3, 8, 17)
    model = onnx.load(folder / "net.onnx")
    onnx.save(
        model,
        folder / "net.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=0,
    )
    assert len(list(folder.iterdir())) > 2
    return folder


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_onnx_file_has_the_same_weights_in_every_layout(
    outside: Path, tmp_path: Path, layout: str
) -> None:
    wanted = weights(onnx.load(outside / "net.onnx"))
    found = weights(model_file.load(laid_out(outside, tmp_path / "place", layout) / "net.onnx"))
    assert list(found) == list(wanted)
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.parametrize("location", ["../stranger", "/etc/hostname", "link"])
def test_weights_outside_the_folder_are_refused(
    outside: Path, tmp_path: Path, location: str
) -> None:
    folder = Path(shutil.copytree(outside, tmp_path / "net"))
    (tmp_path / "stranger").write_bytes(bytes(1 << 16))
    (folder / "link").symlink_to(tmp_path / "stranger")
    model = onnx.load(folder / "net.onnx", load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="its weights lie outside"):
        model_file.load(folder / "net.onnx")


def test_weights_that_are_cut_short_are_refused(outside: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(outside, tmp_path / "net"))
    for file in folder.iterdir():
        if file.name != "net.onnx":
            file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="ends before the weight"):
        model_file.load(folder / "net.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_builds_the_same_bundle_from_every_layout(
    mini_checkpoint: Path, mini_bundle: Bundle, tmp_path: Path, layout: str
) -> None:
    checkpoint = laid_out(mini_checkpoint, tmp_path / "place", layout)
    bundle = build_bundle(Source(checkpoint), tmp_path / "out")
    names = ("bundle.json", "README.md")
    assert {k: v for k, v in bundle.manifest["files"].items() if k not in names} == {
        k: v for k, v in mini_bundle.manifest["files"].items() if k not in names
    }
