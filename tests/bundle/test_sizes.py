"""Other sizes than the default: which are taken, and what they are sampled from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from synfer_rt.backends import open_engine
from synfer_rt.bundle import Bundle, open_bundle, write_manifest
from synfer_rt.bundle.sizes import Sizes
from synfer_rt.commands.cli import main
from synfer_rt.diffusion import noise
from synfer_rt.diffusion.solvers import trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling.requests import Request, make_requests
from synfer_rt.sampling.sampler import Sampler
from tests import tiny_bundle as tiny

SIZES = {"min": 16, "max": 48, "multiple_of": 8}
SIZE = (24, 40)


@pytest.fixture(scope="module")
def free_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle with free height and width; its default is that of the static one."""
    return tiny.build(tmp_path_factory.mktemp("bundle") / "free", sizes=SIZES)


def asked(bundle: Bundle, count: int) -> list[Request]:
    return make_requests(bundle, seed=3, layout="none")[:count]


def images(bundle: Bundle, backend: str = "onnxruntime-cpu", batch: int = 4) -> np.ndarray:
    way = trajectory("dpmpp-2m", bundle.schedule, 3, prediction_type=bundle.prediction_type)
    made = Sampler.of(bundle, backend, threads=1).sample(asked(bundle, 5), way, batch)
    return np.stack([sample.image for sample in made])


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "openvino-cpu"])
def test_images_have_the_size_asked_for(free_bundle: Bundle, backend: str) -> None:
    if backend.startswith("openvino"):
        pytest.importorskip("openvino", reason="needs synfer-rt[openvino]")
    wanted = images(free_bundle.resized(SIZE))
    assert wanted.shape == (5, *SIZE, 3) and wanted.std() > 5
    found = images(free_bundle.resized(SIZE), backend, batch=3)
    assert np.abs(found.astype(int) - wanted).max() <= 2


def test_at_the_default_size_free_engines_make_the_images_of_static_ones(
    free_bundle: Bundle, tiny_bundle: Bundle
) -> None:
    apart = images(free_bundle).astype(int) - images(tiny_bundle)
    assert np.abs(apart).max() <= 1


def test_the_noise_has_the_shape_of_the_latents(free_bundle: Bundle) -> None:
    bundle = free_bundle.resized(SIZE)
    way = trajectory("ddim", bundle.schedule, 2, prediction_type=bundle.prediction_type)
    (first, *_) = Sampler.of(bundle, "onnxruntime-cpu").start(asked(bundle, 2), way)
    wanted = noise.normal(3, 0, (4, 6, 10)) * np.float32(way.noise)
    np.testing.assert_array_equal(first, wanted)


def test_one_openvino_engine_runs_images_of_different_sizes_in_turn(free_bundle: Bundle) -> None:
    pytest.importorskip("openvino", reason="needs synfer-rt[openvino]")
    from synfer_rt.backends.openvino import OpenVinoEngine

    engine = open_engine(free_bundle, "decoder", "openvino-cpu", 1)
    assert isinstance(engine, OpenVinoEngine)
    for size in ((8, 8), (6, 10), (10, 6), (6, 10)):
        decoded = engine.run({"latents": np.zeros((2, 4, *size), np.float32)})["images"]
        assert decoded.shape == (2, 3, 4 * size[0], 4 * size[1])


def test_a_static_bundle_makes_its_own_size_only(tiny_bundle: Bundle) -> None:
    assert tiny_bundle.resized((32, 32)) is tiny_bundle
    with pytest.raises(UserError, match=r"images of 32x32 only; .*--sizes"):
        tiny_bundle.resized(SIZE)


@pytest.mark.parametrize("size", [(8, 32), (32, 56), (20, 32)])
def test_what_the_engines_do_not_take_is_refused(free_bundle: Bundle, size: Any) -> None:
    with pytest.raises(UserError, match="16 to 48 pixels in steps of 8"):
        free_bundle.resized(size)


NO_PAIRS = ["24x40", 24, (24,), (24, 40, 3), (24.0, 40.0), (True, 24), (0, 24)]


@pytest.mark.parametrize("size", NO_PAIRS)
def test_a_size_that_is_no_pair_of_lengths_is_refused(free_bundle: Bundle, size: Any) -> None:
    with pytest.raises(UserError, match=r"`size` must be \(height, width\) in whole pixels, got "):
        free_bundle.resized(size)


def test_a_size_may_be_of_numpys_numbers(free_bundle: Bundle) -> None:
    size: Any = np.array(SIZE)
    bundle = free_bundle.resized(size)
    assert bundle.image_size == SIZE and type(bundle.image_size[0]) is int
    size = list(free_bundle.image_size)
    assert free_bundle.resized(size) is free_bundle


def test_the_size_that_engines_are_also_verified_at_is_another() -> None:
    sizes = Sizes(16, 24, 8)
    assert sizes.other((16, 16)) == (24, 16) and sizes.other((24, 16)) == (16, 24)


def test_other_sizes_start_from_noise_and_not_from_the_bank(free_bundle: Bundle) -> None:
    bundle = free_bundle.resized(SIZE)
    assert make_requests(free_bundle).bank is not None and make_requests(bundle).bank is None
    with pytest.raises(UserError, match=r"bank of synfer-tiny is for images of 32x32, not 24x40"):
        make_requests(bundle, layout="bank")


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"min": 16, "max": 48}, "multiple_of"),
        ({"min": 48, "max": 16, "multiple_of": 8}, "fewer than two sizes"),
        ({"min": 16, "max": 44, "multiple_of": 8}, "fewer than two sizes"),
        ({"min": 40, "max": 48, "multiple_of": 8}, r"image size \[32, 32\] is not among 40 to 48"),
        (None, "denoiser has no input latents"),
    ],
)
def test_a_manifest_whose_sizes_do_not_fit_is_refused(
    tmp_path: Path, sizes: dict[str, int] | None, said: str
) -> None:
    path = tiny.build(tmp_path / "free", sizes=SIZES).path
    fields = json.loads((path / "bundle.json").read_text())
    (path / "bundle.json").write_text(json.dumps({**fields, "sizes": sizes}))
    with pytest.raises(UserError, match=said):
        open_bundle(path)


def test_plans_are_for_all_sizes(tmp_path: Path) -> None:
    bundle = tiny.add_plans(tiny.build(tmp_path / "free", sizes=SIZES))
    plans = bundle.manifest["plans"]
    profile = plans["tensorrt-rtx"]["decoder"]["profiles"]["latents"]
    assert profile == {"min": [1, 4, 4, 4], "opt": [4, 4, 8, 8], "max": [8, 4, 12, 12]}
    profile["max"] = [8, 4, 10, 12]
    fields = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    with pytest.raises(UserError, match=r"has the shape \[8, 4, 10, 12\] for latents"):
        write_manifest(bundle.path, fields)


@pytest.fixture
def sample(free_bundle: Bundle, tmp_path: Path) -> Callable[..., Any]:
    def invoke(*options: str) -> Any:
        given = ["--bundle", str(free_bundle.path), "--out", str(tmp_path / "out"), "--steps", "2"]
        given += ["--count", "4", "--backend", "onnxruntime-cpu"]
        return CliRunner().invoke(main, ["sample", *given, *options])

    return invoke


def test_sample_writes_images_of_the_size_and_notes_it(
    sample: Callable[..., Any], tmp_path: Path
) -> None:
    assert sample("--size", "24x40").exit_code == 0
    files = list((tmp_path / "out").glob("*/*.png"))
    assert len(files) == 4 and all(Image.open(file).size == (40, 24) for file in files)
    settings = json.loads((tmp_path / "__out__/run.json").read_text())
    assert settings["size"] == [24, 40]
    assert (settings["layout"], settings["layout_strength"]) == ("none", 1.0)
    assert sample("--size", "24x40", "--resume").exit_code == 0
    other = sample("--size", "40x24", "--resume")
    assert other.exit_code == 2 and "another size: [24, 40], now [40, 24]" in other.output


def test_at_the_default_size_a_run_has_the_settings_that_it_always_had(
    sample: Callable[..., Any], tmp_path: Path
) -> None:
    assert sample("--size", "32x32").exit_code == 0
    assert "size" not in json.loads((tmp_path / "__out__/run.json").read_text())
    assert sample("--resume").exit_code == 0


def test_inspect_says_which_sizes(free_bundle: Bundle) -> None:
    said = CliRunner().invoke(main, ["inspect", str(free_bundle.path)]).output
    assert "16 to 48 pixels in steps of 8" in said and "Bx3xHxW" in said
