"""--cache-depth: engines that store and reuse the features of the UNet's deep part."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

from synfer_rt.backends import parity
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.cuda import cuda_file
from synfer_rt.errors import UserError
from synfer_rt.export.api import build_engines
from synfer_rt.export.cuda.engine import cuda_engine
from synfer_rt.export.cuda.parity import TOLERANCES, max_relative_error
from synfer_rt.export.onnx.shared_weights import data_files
from tests.conftest import Once

pytestmark = pytest.mark.slow

STORING, REUSING = "denoiser.storing", "denoiser.reusing"


@pytest.fixture(scope="module")
def caching_bundle(sd_checkpoint: Path, once: Once) -> Bundle:
    """Its UNet has four skip connections, of which two are shallow."""
    made = once("bundles/caching", lambda out: build_engines(sd_checkpoint, out, cache_depth=2))
    return open_bundle(made)


def test_both_are_held_against_the_whole_unet(caching_bundle: Bundle) -> None:
    for name in (STORING, REUSING):
        found = caching_bundle.engines[name].parity
        assert 0 < found["max_relative_error"] < 1e-4 == found["tolerance"]
        openvino = caching_bundle.engines[name].parity_openvino
        assert openvino is None or openvino.holds


def test_the_unet_is_stored_once(caching_bundle: Bundle) -> None:
    for name in (STORING, REUSING):
        file = caching_bundle.engines[name].file
        assert data_files(caching_bundle.path / file) == {"denoiser.onnx.data"}


@pytest.mark.parametrize("batch", [1, 4])
def test_with_the_features_of_the_same_step_both_are_the_denoiser(
    caching_bundle: Bundle, engine: Callable, batch: int
) -> None:
    given = parity.inputs(caching_bundle, "denoiser", batch)
    wanted = engine(caching_bundle, "denoiser")(**given)
    stored = engine(caching_bundle, STORING)(**given)
    features = stored.pop("features")
    assert features.shape == (batch, 2, 32, 8, 8)
    reused = engine(caching_bundle, REUSING)(features=features, **given)
    for name, value in wanted.items():
        limit = 1e-5 * np.abs(value).max()
        np.testing.assert_allclose(stored[name], value, atol=limit)
        np.testing.assert_allclose(reused[name], value, atol=limit)
    moved = engine(caching_bundle, REUSING)(features=features[::-1] + 1, **given)
    assert np.abs(moved["prediction"] - wanted["prediction"]).max() > 1e-2


def test_no_image_reads_the_features_of_another(caching_bundle: Bundle, engine: Callable) -> None:
    given = parity.inputs(caching_bundle, REUSING, 3)
    reuse = engine(caching_bundle, REUSING)
    whole = reuse(**given)["prediction"]
    alone = {k: v if k in ("timestep", "coefficients") else v[1:2] for k, v in given.items()}
    limit = 1e-5 * np.abs(whole).max()
    np.testing.assert_allclose(reuse(**alone)["prediction"], whole[1:2], atol=limit)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache_depth": 4}, r"`cache_depth` must be from 1 to 3, .* got 4"),
        ({"cache_depth": 0}, "`cache_depth` must be a whole number of at least 1, got 0"),
        ({"cache_depth": 1.5}, "`cache_depth` must be a whole number of at least 1, got 1.5"),
        ({"cache_depth": 1, "precision": "int8"}, "int8 engines do not cache features"),
        (
            {"cache_depth": 3, "sizes": (16, 32)},
            "`cache_depth` 3 keeps features .* give at most 2, or leave out `sizes`",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is(
    sd_checkpoint: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_engines(sd_checkpoint, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_both_become_cuda_engines(caching_bundle: Bundle, tmp_path: Path) -> None:
    copy = open_bundle(shutil.copytree(caching_bundle.path, tmp_path / "copy"))
    for name in (STORING, REUSING):
        file = copy.path / cuda_file(copy.engines[name])
        cuda_engine(copy.path / copy.engines[name].file, file, name, "fp16")
        assert 0 < max_relative_error(copy, name, file) < TOLERANCES["fp16"]
