"""The nearest other image, against all distances computed one by one."""

from __future__ import annotations

import numpy as np
import pytest

from synfer_rt.report import duplicates
from synfer_rt.report.duplicates import FEATURES, nearest


def brute(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wide = features.astype(np.int64)
    squares = ((wide[:, None] - wide[None]) ** 2).sum(2)
    np.fill_diagonal(squares, 1 << 40)
    return squares.argmin(1), np.sqrt(squares.min(1) / FEATURES)


@pytest.mark.parametrize("most", [3, 255], ids=["many ties", "few ties"])
def test_the_nearest_of_all_is_found_in_blocks(most: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(duplicates, "_BLOCK", 32)
    features = np.random.default_rng(0).integers(0, most, (150, FEATURES), np.uint8)
    features[[20, 70, 140]] = features[3]
    found = nearest(features, np.ones(150, bool))
    image, distance = brute(features)
    np.testing.assert_array_equal(found.image, image)
    np.testing.assert_array_equal(found.distance, distance)


def test_black_and_white_are_exactly_255_levels_apart():
    features = np.zeros((2, FEATURES), np.uint8)
    features[1] = 255
    assert nearest(features, np.ones(2, bool)).distance.tolist() == [255, 255]


def test_one_level_in_one_pixel_is_not_lost_beside_the_largest_norms():
    features = np.full((3, FEATURES), 255, np.uint8)
    features[1, 0], features[2, :2] = 254, 254
    found = nearest(features, np.ones(3, bool))
    assert found.image.tolist() == [1, 0, 1]
    assert found.distance.tolist() == [1 / 16, 1 / 16, 1 / 16]


def test_an_image_without_a_picture_is_nobodys_nearest():
    features = np.zeros((4, FEATURES), np.uint8)
    features[3] = 9
    found = nearest(features, np.array([True, False, False, True]))
    assert found.image.tolist() == [3, -1, -1, 0]
    assert np.isnan(found.distance[1:3]).all() and found.pairs(9) == [(0, 3, 9.0)]


def test_pairs_are_named_once_and_nearest_first():
    features = np.zeros((5, FEATURES), np.uint8)
    features[:, 0] = [0, 2, 100, 103, 200]
    pairs = nearest(features, np.ones(5, bool)).pairs(10)
    assert [pair[:2] for pair in pairs] == [(0, 1), (2, 3), (3, 4)]
    assert nearest(features, np.ones(5, bool)).pairs(1) == [(0, 1, 2 / 16)]
