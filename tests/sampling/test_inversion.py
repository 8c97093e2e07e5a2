"""Faces are turned into noise that leads back to them; what is no face is reported."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synfer_rt.backends import to_numpy
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.data.images import read_image
from synfer_rt.diffusion.inversion import FIXED_POINT, METHODS, PREDICTOR_CORRECTOR
from synfer_rt.diffusion.solvers import Trajectory, trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling.inversion import (
    STRENGTH,
    Photos,
    PhotoStarts,
    invert,
    neutral_request,
    psnr,
    read_photos,
)
from synfer_rt.sampling.sampler import Sampler
from tests import tiny_bundle as tiny


def ways(bundle: Bundle, solver: str, prediction_type: str) -> Trajectory:
    return trajectory(solver, bundle.schedule, 12, 0.6, prediction_type)


@pytest.mark.parametrize("method", METHODS)
def test_images_come_back_through_the_engines(
    sampler: Sampler, tiny_bundle: Bundle, method: str
) -> None:
    way = trajectory("ddim", tiny_bundle.schedule, 100, 0.5, tiny_bundle.prediction_type)
    images = np.random.default_rng(2).random((5, 3, *tiny.IMAGE), np.float32)
    latents = invert(sampler, images, way, method=method)
    assert latents.shape == (5, *tiny.LATENT)
    encoded, _ = sampler.encode(images)
    assert np.abs(latents - encoded).max() > 0.1
    neutral = [replace(neutral_request(tiny_bundle), index=i) for i in range(5)]
    *_, back = sampler.denoise(latents, sampler.condition(neutral), np.ones(5, "f4"), way)
    assert np.sqrt(np.square(to_numpy(back) - encoded).mean()) < 2e-2


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


class Counting(Sampler):
    """It notes how many photos go through the encoder at once."""

    found: list[int]

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.found.append(len(images))
        return super().encode(images)


@pytest.fixture
def counting(tiny_bundle: Bundle) -> Counting:
    sampler = Counting.of(tiny_bundle, "onnxruntime-cpu", 1)
    sampler.found = []
    return sampler


def test_each_photo_is_inverted_once_when_it_is_needed(
    counting: Counting, photos: Photos, way: Trajectory
) -> None:
    starts = PhotoStarts(counting, photos, way)
    first = starts.latents([0, 0, 1])
    np.testing.assert_array_equal(first[0], first[1])
    again = starts.latents([3, 1, 0])
    np.testing.assert_array_equal(again[1:], first[[2, 0]])
    assert counting.found == [5, 5]  # always as many at once
    whole = invert(counting, photos.images(range(5)), way)
    np.testing.assert_allclose(again, whole[[3, 1, 0]], atol=1e-5)


def test_a_start_does_not_depend_on_those_that_are_found_with_it(
    sampler: Sampler, photos: Photos, way: Trajectory
) -> None:
    """Bit for bit: some runtimes compute the last bits by the number of rows."""
    alone = [PhotoStarts(sampler, photos, way).latents([row])[0] for row in range(5)]
    together = PhotoStarts(sampler, photos, way).latents([0], range(5))
    np.testing.assert_array_equal(together[0], alone[0])
    backwards = PhotoStarts(sampler, photos, way).latents([4, 2, 1])
    np.testing.assert_array_equal(backwards, np.stack([alone[row] for row in (4, 2, 1)]))


def test_starts_go_when_their_photos_have_passed(
    counting: Counting, photos: Photos, way: Trajectory
) -> None:
    starts = PhotoStarts(counting, photos, way, come_back=False)
    for row in range(5):
        starts.latents([row], [row, min(row + 1, 4)])
        assert starts.kept <= 2
    assert sum(counting.found) <= 5 * 5


def test_starts_that_come_back_are_kept_if_all_of_them_may_be(
    counting: Counting, photos: Photos, way: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = PhotoStarts(counting, photos, way).latents([0]).nbytes
    for most, kept in ((5 * each, 5), (5 * each - 1, 1)):
        monkeypatch.setattr("synfer_rt.sampling.inversion._KEPT", most)
        starts = PhotoStarts(counting, photos, way)
        for row in (0, 1, 2, 3, 4, 0, 1):
            starts.latents([row])
        assert starts.kept == kept


def test_the_au_reader_looks_at_the_photos(voting_bundle: Bundle, photos: Photos) -> None:
    sampler = Sampler.of(voting_bundle, "onnxruntime-cpu", 1)
    way = ways(voting_bundle, "ddim", voting_bundle.prediction_type)
    starts = PhotoStarts(sampler, photos, way, come_back=False, reads_aus=True)
    starts.latents([3, 1])
    wanted = sampler.annotators.aus(photos.images([3, 1]))
    assert wanted is not None
    read = starts.aus([3, 1])
    assert read is not None and [list(one) for one in read] == [list(voting_bundle.au_names)] * 2
    np.testing.assert_allclose([list(one.values()) for one in read], wanted, atol=6e-5)
    assert PhotoStarts(sampler, photos, way).aus([3, 1]) is None


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


def test_faces_come_back_from_one_evaluation_a_step_as_from_three() -> None:
    """Of the shipped model, whose start faces are renders."""
    bundle = open_bundle()
    shipped = Sampler.of(bundle, "onnxruntime-cpu", 1)
    faces = shipped.decode(bundle.layouts.latents[:2].astype(np.float32))
    way = bundle.trajectory(strength=STRENGTH, quality="best")
    neutral = [neutral_request(bundle)] * len(faces)
    db: dict[str, float] = {}
    for method in METHODS:
        starts = invert(shipped, faces, way, method=method)
        back = shipped.decode(shipped.denoised(neutral, starts, way))
        db[method] = float(psnr(back, faces).mean())
    assert db[PREDICTOR_CORRECTOR] > db[FIXED_POINT] - 0.1
