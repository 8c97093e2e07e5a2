"""What inversion costs is measured against denoising, and counted in evaluations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from synfer_rt.bench import inversion
from synfer_rt.bench.inversion import DENOISING, costs, evaluations
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.inversion import FIXED_POINT, METHODS, PREDICTOR_CORRECTOR
from synfer_rt.sampling.sampler import Sampler
from tests import tiny_bundle as tiny


def test_costs_are_ratios_of_the_same_repeat(sampler: Sampler) -> None:
    way = sampler.bundle.trajectory("ddim", 3, 0.7)
    images = np.random.default_rng(0).random((2, 3, *tiny.IMAGE), np.float32)
    found = {cost.name: cost for cost in costs(sampler, images, way, 2.5, 2)}
    assert list(found) == [*METHODS, DENOISING]
    assert list(found[DENOISING].ratios) == [1, 1] and found[DENOISING].db is None
    for cost in found.values():
        over = zip(cost.seconds, found[DENOISING].seconds, strict=True)
        assert list(cost.ratios) == [one / other for one, other in over]
    assert all(found[name].db is not None for name in METHODS)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_evaluations_count_branches(
    branched_bundle: Bundle, tiny_bundle: Bundle, guidance: float
) -> None:
    """Of a bundle without an engine of one branch every evaluation has two."""
    way = branched_bundle.trajectory("ddim", 3, 0.7)
    assert evaluations(tiny_bundle, way, guidance) == 6
    assert evaluations(branched_bundle, way, guidance) == (3 if guidance == 1 else 6)
    prediction_type = branched_bundle.prediction_type
    counted = {
        name: evaluations(branched_bundle, method(way, prediction_type), 1.0)
        for name, method in METHODS.items()
    }
    assert counted == {PREDICTOR_CORRECTOR: 3, FIXED_POINT: 9}


def test_the_command_prints_a_row_for_each(tiny_bundle: Bundle, tmp_path: Path) -> None:
    Image.radial_gradient("L").save(tmp_path / "face.png")
    words = ["--bundle", tiny_bundle.path, "--repeats", 1, "--steps", 2, "--threads", 1]
    words += ["--backend", "onnxruntime-cpu", "--guidance", 1]
    done = CliRunner().invoke(inversion.main, [*map(str, words), "--layout-from", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "1 photos, 2 steps from 0.7 of the schedule, guidance 1, 1 repeats" in done.output
    rows = [line.split("|")[1].strip() for line in done.output.splitlines() if line[:1] == "|"]
    assert rows[2:] == [*METHODS, DENOISING]
    done = CliRunner().invoke(inversion.main, [*map(str, words), "--count", "2"])
    assert done.exit_code == 0 and "2 photos" in done.output  # start faces
