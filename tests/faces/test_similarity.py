"""Similarities are fitted by least squares, and composed, inverted and applied."""

from __future__ import annotations

import numpy as np
import pytest

from synfer_rt.faces import similarity


def turned(degrees: float, factor: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    cosine, sine = factor * np.cos(angle), factor * np.sin(angle)
    return np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]])


POINTS = np.random.default_rng(0).uniform(0, 100, (5, 2))


@pytest.mark.parametrize("degrees", [0, 30, -30, 100])
def test_a_similarity_is_found_from_where_points_go(degrees: float):
    true = turned(degrees, 0.4, (7, -3))
    found = similarity.fitted(POINTS, similarity.moved(true, POINTS))
    np.testing.assert_allclose(found, true, atol=1e-12)
    assert similarity.scale(found) == pytest.approx(0.4)


def test_no_other_similarity_is_nearer():
    target = np.random.default_rng(1).uniform(0, 100, (5, 2))
    best = similarity.fitted(POINTS, target)

    def distance(matrix: np.ndarray) -> float:
        return float(np.square(similarity.moved(matrix, POINTS) - target).sum())

    for degrees, factor, x, y in ((0.1, 1, 0, 0), (0, 1.002, 0, 0), (0, 1, 0.1, 0), (0, 1, 0, 0.1)):
        for sign in (1, -1):
            small = turned(sign * degrees, factor**sign, (sign * x, sign * y))
            other = np.column_stack([small[:, :2] @ best[:, :2], small[:, :2] @ best[:, 2]])
            other[:, 2] += small[:, 2]
            assert distance(best) < distance(other)


def test_mirrored_points_are_turned_and_not_mirrored():
    found = similarity.fitted(POINTS, POINTS * (-1, 1))
    assert np.linalg.det(found[:, :2]) > 0


def test_the_inverse_leads_back():
    matrix = turned(30, 0.4, (7, -3))
    back = similarity.moved(similarity.inverse(matrix), similarity.moved(matrix, POINTS))
    np.testing.assert_allclose(back, POINTS, atol=1e-12)


def test_placed_takes_a_point_to_a_centre():
    matrix = similarity.placed((50, 40), 2.0, (8, 16))
    moved = similarity.moved(matrix, np.array([[8, 16], [9, 16]]))
    np.testing.assert_allclose(moved, [[50, 40], [52, 40]])


def test_points_in_one_place_are_refused():
    with pytest.raises(ValueError, match="one place"):
        similarity.fitted(np.ones((5, 2)), POINTS)
