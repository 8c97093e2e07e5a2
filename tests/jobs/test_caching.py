"""Runs whose steps reuse features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt.api import Model
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.jobs.sample_settings import SampleSettings, make_run
from tests.caching import with_caching

CPU, STORING, REUSING = "onnxruntime-cpu", "denoiser.storing", "denoiser.reusing"


@pytest.fixture(scope="module")
def caching_bundle(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_caching(tiny_bundle, tmp_path_factory.mktemp("caching") / "bundle")


def test_run_and_records_say_how_often_features_are_computed(caching_bundle: Bundle) -> None:
    samples = Model(caching_bundle, CPU, 1).sample(count=1, cache_every=2)
    run = make_run(caching_bundle, count=1, cache_every=2)
    assert run.settings("parquet")["cache_every"] == 2
    assert run.record(samples[0])["cache_every"] == 2
    assert run.trajectory.reused.tolist() == [False, True, False, True]
    assert {STORING, REUSING} <= {*run.engines} and "denoiser" not in run.engines


def test_by_default_no_features_are_reused(caching_bundle: Bundle) -> None:
    given: list[SampleSettings] = [{}, {"cache_every": None}, {"cache_every": 1}]
    for settings in given:
        run = make_run(caching_bundle, count=1, **settings)
        assert "cache_every" not in run.settings("parquet")  # as in runs of earlier releases
        assert not {STORING, REUSING} & {*run.engines}
        assert not run.trajectory.reused.any()
        sample = Model(caching_bundle, CPU, 1).sample(count=1, **settings)[0]
        assert run.record(sample)["cache_every"] == 1


def test_reuse_changes_images_and_the_first_step_none(caching_bundle: Bundle) -> None:
    model = Model(caching_bundle, CPU, 1)

    def images(**settings: Any) -> np.ndarray:
        return np.stack([sample.image for sample in model.sample(count=2, **settings)])

    assert (images(cache_every=2) != images()).any()
    np.testing.assert_array_equal(images(cache_every=9, steps=1), images(steps=1))


def test_a_run_goes_on_with_the_same_number_only(caching_bundle: Bundle, tmp_path: Path) -> None:
    model, out = Model(caching_bundle, CPU, 1), tmp_path / "out"
    model.write(out, count=2, cache_every=2)
    assert model.write(out, count=2, cache_every=2, resume=True).count == 2
    with pytest.raises(UserError, match="begun with another cache every: 2, now 3"):
        model.write(out, count=2, cache_every=3, resume=True)
    with pytest.raises(UserError, match="begun with another cache every: 2, now 1"):
        model.write(out, count=2, resume=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache_every": 0}, "`cache_every` must be at least 1, got 0"),
        ({"cache_every": 1.5}, "`cache_every` must be a whole number of at least 1, got 1.5"),
        ({"cache_every": 2, "guidance": 1.0}, "acts in guided steps, .* raise `guidance`, or"),
    ],
)
def test_what_cannot_be_run_is_refused(
    caching_bundle: Bundle, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_run(caching_bundle, count=1, **settings)


def test_a_bundle_without_the_engines_is_named(tiny_bundle: Bundle) -> None:
    with pytest.raises(UserError, match="has no engines that cache features; build it with"):
        make_run(tiny_bundle, count=1, cache_every=2)
    make_run(tiny_bundle, count=1, cache_every=1)
