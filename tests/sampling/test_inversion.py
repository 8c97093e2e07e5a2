"""Faces are turned into noise that leads back to them; what is no face is reported."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synfer_rt.backends import to_numpy
from synfer_rt.bundle import Bundle
from synfer_rt.data.images import read_image
from synfer_rt.diffusion.solvers import SOLVERS, Trajectory, trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling.inversion import (
    Photos,
    PhotoStarts,
    invert,
    inverted,
    neutral_request,
    psnr,
    read_photos,
)
from synfer_rt.sampling.sampler import Sampler
from tests import tiny_bundle as tiny


def run(
    way: Trajectory, start: np.ndarray, predict: Callable[[np.ndarray, float], np.ndarray]
) -> np.ndarray:
    """What the denoiser engine computes along `way`, with `predict` as its UNet."""
    stack = np.zeros((5, *start.shape))
    stack[0] = start
    for timestep, matrix in zip(way.timesteps, way.coefficients.astype(np.float64), strict=True):
        stack[1] = predict(stack[0], timestep)
        rows = np.tensordot(matrix, stack, 1)
        stack[0], stack[2:] = rows[0], rows[1:]
    return stack[0]


def smooth(x: np.ndarray, timestep: float) -> np.ndarray:
    return np.tanh(x[::-1] + timestep / 1000)


def ways(bundle: Bundle, solver: str, prediction_type: str) -> Trajectory:
    return trajectory(solver, bundle.schedule, 12, 0.6, prediction_type)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_ddim_leads_back_once_the_rounds_have_converged(
    tiny_bundle: Bundle, prediction_type: str
) -> None:
    way = ways(tiny_bundle, "ddim", prediction_type)
    start = np.random.default_rng(0).standard_normal(50)
    clean = run(way, start, smooth)
    errors = [
        np.abs(run(inverted(way, prediction_type, rounds), clean, smooth) - start).max()
        for rounds in (1, 3, 20)
    ]
    assert errors[0] > 3 * errors[1] > 3 * errors[2]
    assert errors[2] < 1e-4


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_every_solvers_start_is_found_for_a_known_image(
    tiny_bundle: Bundle, solver: str, prediction_type: str
) -> None:
    way = ways(tiny_bundle, solver, prediction_type)
    clean, noise = np.random.default_rng(1).standard_normal((2, 50))
    a, b = way.coefficients[0, 1, :2].astype(float)
    signal, level = (1 / a, -b / a) if prediction_type == "epsilon" else (a, -b)

    def exact(x: np.ndarray, timestep: float) -> np.ndarray:
        i = int(np.flatnonzero(way.timesteps == timestep)[0])
        a, b = way.coefficients[i, 1, :2].astype(float)
        signal, level = (1 / a, -b / a) if prediction_type == "epsilon" else (a, -b)
        return noise if prediction_type == "epsilon" else signal * noise - level * clean

    found = run(inverted(way, prediction_type, 1), clean, exact)
    np.testing.assert_allclose(found, signal * clean + level * noise, atol=1e-4)


def test_no_rounds_are_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(UserError, match="`rounds` must be at least 1, got 0"):
        inverted(ways(tiny_bundle, "ddim", "v_prediction"), "v_prediction", 0)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m"])
def test_one_step_from_noise_alone_is_refused(tiny_bundle: Bundle, solver: str) -> None:
    assert tiny_bundle.schedule.alphas_cumprod[-1] == 0
    for steps, strength in ((2, 1.0), (1, 0.9)):
        way = trajectory(solver, tiny_bundle.schedule, steps, strength, "v_prediction")
        assert np.isfinite(inverted(way, "v_prediction").coefficients).all()
    with pytest.raises(UserError, match="raise `steps`, or lower `layout_strength`"):
        inverted(trajectory(solver, tiny_bundle.schedule, 1, 1.0, "v_prediction"), "v_prediction")


def test_images_come_back_through_the_engines(sampler: Sampler, tiny_bundle: Bundle) -> None:
    way = trajectory("ddim", tiny_bundle.schedule, 100, 0.5, tiny_bundle.prediction_type)
    images = np.random.default_rng(2).random((5, 3, *tiny.IMAGE), np.float32)
    latents = invert(sampler, images, way, rounds=8)
    assert latents.shape == (5, *tiny.LATENT)
    encoded, _ = sampler.encode(images)
    assert np.abs(latents - encoded).max() > 0.1
    neutral = [replace(neutral_request(tiny_bundle), index=i) for i in range(5)]
    *_, back = sampler.denoise(latents, sampler.condition(neutral), np.ones(5, "f4"), way)
    np.testing.assert_allclose(to_numpy(back), encoded, atol=1e-2)


def test_an_image_is_inverted_alone_as_in_a_batch(sampler: Sampler, tiny_bundle: Bundle) -> None:
    way = ways(tiny_bundle, "ddim", tiny_bundle.prediction_type)
    images = np.random.default_rng(3).random((3, 3, *tiny.IMAGE), np.float32)
    together, alone = invert(sampler, images, way), invert(sampler, images[1:2], way)
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)


def test_a_bundle_without_an_encoder_is_refused(sampler: Sampler, tiny_bundle: Bundle) -> None:
    engines = {k: v for k, v in tiny_bundle.engines.items() if k != "encoder"}
    without = Sampler.of(replace(tiny_bundle, engines=engines), "onnxruntime-cpu", 1)
    way = ways(tiny_bundle, "ddim", tiny_bundle.prediction_type)
    with pytest.raises(UserError, match="has no encoder"):
        invert(without, np.zeros((1, 3, *tiny.IMAGE), np.float32), way)


def test_photos_are_read_in_order_and_bad_ones_reported(tmp_path: Path) -> None:
    for name, grey in (("b.png", 200), ("a.jpg", 100)):
        Image.new("RGB", (40, 50), (grey,) * 3).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no face")
    (tmp_path / "cut.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    photos = read_photos(tmp_path, (32, 32))
    assert [file.name for file in photos.files] == ["a.jpg", "b.png"]
    assert photos.names == ("a.jpg", "b.png")
    np.testing.assert_array_equal(photos.images([1])[0], read_image(tmp_path / "b.png", (32, 32)))
    content = (tmp_path / "a.jpg").read_bytes()
    assert photos.sha256[0] == hashlib.sha256(content).hexdigest()
    assert len(photos) + len(photos.skipped) == 4
    assert list(photos.skipped) == ["cut.png", "notes.txt"]
    assert all("cannot be read" in reason for reason in photos.skipped.values())


def test_photos_whose_names_are_not_utf8_can_be_written_down(tmp_path: Path) -> None:
    for name in (b"caf\xe9.png", b"\xe9.txt"):
        (tmp_path / os.fsdecode(name)).touch()
    Image.new("RGB", (32, 32)).save(tmp_path / os.fsdecode(b"caf\xe9.png"))
    photos = read_photos(tmp_path, (32, 32))
    assert photos.names == ("caf\\udce9.png",) and list(photos.skipped) == ["\\udce9.txt"]
    assert photos.images([0]).shape == (1, 3, 32, 32)


def test_photos_are_told_apart_by_their_bytes_and_order(tmp_path: Path) -> None:
    for name, grey in (("a.png", 100), ("b.png", 200)):
        Image.new("RGB", (32, 32), (grey,) * 3).save(tmp_path / name)
    before = read_photos(tmp_path, (32, 32)).digest
    assert read_photos(tmp_path, (32, 32)).digest == before
    assert read_photos(tmp_path / "a.png", (32, 32)).digest != before
    (tmp_path / "b.png").rename(tmp_path / "0.png")
    assert read_photos(tmp_path, (32, 32)).digest != before


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    draws = np.random.default_rng(8)
    for i in range(5):
        smooth = draws.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(smooth).resize((32, 32)).save(tmp_path / f"{i}.png")
    return read_photos(tmp_path, (32, 32))


def test_each_photo_is_inverted_once_when_it_is_needed(tiny_bundle: Bundle, photos: Photos) -> None:
    found: list[int] = []

    class Counting(Sampler):
        def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found.append(len(images))
            return super().encode(images)

    sampler = Counting.of(tiny_bundle, "onnxruntime-cpu", 1)
    way = ways(tiny_bundle, "dpmpp-2m", tiny_bundle.prediction_type)
    starts = PhotoStarts(sampler, photos, way)
    first = starts.latents([0, 0, 1])
    np.testing.assert_array_equal(first[0], first[1])
    again = starts.latents([3, 1, 0])
    np.testing.assert_array_equal(again[1:], first[[2, 0]])
    assert found == [2, 1]
    whole = invert(sampler, photos.images(range(5)), way)
    np.testing.assert_allclose(again, whole[[3, 1, 0]], atol=1e-5)


def test_the_latents_of_many_photos_are_not_kept(
    sampler: Sampler, photos: Photos, way: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is passed goes, what comes next stays, and photos that come back are inverted again."""
    kept = PhotoStarts(sampler, photos, way)
    all_of_them = [kept.latents([row])[0] for row in range(5)]
    monkeypatch.setattr("synfer_rt.sampling.inversion._KEPT", 2 * all_of_them[0].nbytes)
    starts = PhotoStarts(sampler, photos, way)
    for row in (0, 1, 2, 3, 4, 0, 1):
        latents = starts.latents([row], [row, (row + 1) % 5])
        np.testing.assert_allclose(latents, [all_of_them[row]], atol=1e-5)
        assert len(starts._found) == 2 and row in starts._found


def test_the_round_trip_loses_little_beside_the_vae(sampler: Sampler, photos: Photos) -> None:
    prediction_type = sampler.bundle.prediction_type
    errors = []
    for steps in (4, 60):
        way = trajectory("ddim", sampler.bundle.schedule, steps, 0.5, prediction_type)
        there, alone = PhotoStarts(sampler, photos, way).round_trip()
        errors.append(abs(there - alone))
    assert errors[1] < 0.1 and errors[1] < errors[0]


def test_psnr_is_ten_times_the_log_of_the_mean_square() -> None:
    truth = np.full((2, 3, 4, 4), 0.5)
    shifted = truth + np.array([0.1, 0.01])[:, None, None, None]
    np.testing.assert_allclose(psnr(shifted, truth), [20, 40])


def test_a_folder_without_any_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no face")
    with pytest.raises(UserError, match=r"None of the 1 files .* the first: it cannot be read"):
        read_photos(tmp_path, (32, 32))
