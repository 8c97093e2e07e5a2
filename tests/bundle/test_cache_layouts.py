"""Bundles and checkpoints open however their files came to lie where they lie."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from synfer_rt import backends
from synfer_rt.backends import open_engine
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.errors import UserError
from tests.cache_layouts import LAYOUTS, laid_out
from tests.damaged_bundles import rehash

CPU, OPENVINO = "onnxruntime-cpu", "openvino-cpu"
WORKING = [name for name in (CPU, OPENVINO) if backends.status(name).works]


@pytest.fixture(scope="module")
def beside(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose decoder has its weights in a file beside it."""
    copy = Path(shutil.copytree(tiny_bundle.path, tmp_path_factory.mktemp("beside") / "tiny"))
    file = copy / "decoder.onnx"
    model = onnx.load(file)
    onnx.save(
        model, file, save_as_external_data=True, location="decoder.onnx.data", size_threshold=0
    )
    for name in ("decoder.onnx", "decoder.onnx.data"):
        rehash(copy, name)
    return open_bundle(copy)


def images(bundle: Bundle, backend: str) -> np.ndarray:
    latents = np.random.default_rng(3).standard_normal((2, 4, 8, 8)).astype(np.float32)
    return open_engine(bundle, "decoder", backend, 1).run({"latents": latents})["images"]


@pytest.mark.parametrize("backend", WORKING)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bundle_runs_from_any_layout(
    beside: Bundle, tiny_bundle: Bundle, tmp_path: Path, layout: str, backend: str
) -> None:
    bundle = open_bundle(laid_out(beside.path, tmp_path / "place", layout))
    assert bundle.bundle_hash == beside.bundle_hash
    np.testing.assert_allclose(images(bundle, backend), images(tiny_bundle, CPU), atol=1e-5)


@pytest.mark.skipif(OPENVINO not in WORKING, reason="needs OpenVINO")
def test_links_are_read_where_no_second_name_can_be_given(
    beside: Bundle, tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_disk(*paths: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    bundle = open_bundle(laid_out(beside.path, tmp_path / "place", "cache"))
    monkeypatch.setattr("os.link", other_disk)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    np.testing.assert_allclose(images(bundle, OPENVINO), images(tiny_bundle, CPU), atol=1e-5)
    assert not list((tmp_path / "home").rglob("links-*"))


def test_a_bundle_in_a_folder_of_a_repository_opens(beside: Bundle, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    shutil.copytree(beside.path, tmp_path / "repository" / "engines" / "fp16")
    snapshot = laid_out(tmp_path / "repository", tmp_path / "place", "cache")
    assert open_bundle(snapshot / "engines" / "fp16").bundle_hash == beside.bundle_hash


@pytest.mark.parametrize(
    "target", ["decoder.onnx", "models--owner--other/blobs/decoder.onnx", "blobs/decoder.onnx"]
)
def test_a_link_that_leaves_the_repository_is_refused(
    beside: Bundle, tmp_path: Path, target: str
) -> None:
    place = tmp_path / "place"
    snapshot = laid_out(beside.path, place, "cache")
    (place / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(beside.path / "decoder.onnx", place / target)
    (snapshot / "decoder.onnx").unlink()
    (snapshot / "decoder.onnx").symlink_to(place / target)
    with pytest.raises(UserError, match=r"'decoder\.onnx', outside .*do not use this bundle"):
        open_bundle(snapshot)


def test_a_snapshot_names_no_file_of_another(beside: Bundle, tmp_path: Path) -> None:
    snapshot = laid_out(beside.path, tmp_path / "place", "cache")
    other = Path(shutil.copytree(snapshot, snapshot.parent / "other", symlinks=True))
    manifest = json.loads((snapshot / "bundle.json").read_text())
    manifest["files"][f"../{other.name}/decoder.onnx"] = manifest["files"]["decoder.onnx"]
    (snapshot / "bundle.json").unlink()
    (snapshot / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="outside"):
        open_bundle(snapshot)


@pytest.mark.parametrize("name", ["engine", "snapshots/engine"])
def test_a_folder_that_is_no_cache_allows_no_links_out(
    beside: Bundle, tmp_path: Path, name: str
) -> None:
    copy = Path(shutil.copytree(beside.path, tmp_path / name))
    shutil.move(copy / "decoder.onnx", tmp_path / "decoder.onnx")
    (copy / "decoder.onnx").symlink_to(tmp_path / "decoder.onnx")
    with pytest.raises(UserError, match="outside"):
        open_bundle(copy)
