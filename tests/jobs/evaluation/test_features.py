"""What features say of generated images beside real ones."""

from __future__ import annotations

import numpy as np
import pytest

from synfer_rt import UserError
from synfer_rt.evaluation.neighbours import Nearest
from synfer_rt.jobs.evaluation.features import neighbours, numbers_of_people


def test_people_are_those_of_the_dataset_or_of_the_names() -> None:
    names, known = ["a_1", "a_2", "b_1"], ["x", None, "x"]
    first, second, third = numbers_of_people(names, known, None).tolist()
    assert first == third != second
    first, second, third = numbers_of_people(names, known, "^(.)_").tolist()
    assert first == second != third
    for pattern, words in (("(", "no regular expression"), ("^b", "finds no person in the name a")):
        with pytest.raises(UserError, match=words):
            numbers_of_people(names, known, pattern)


def test_copies_count_where_real_images_have_copies_too() -> None:
    """The threshold is then a distance of 0, which copies in the run have."""
    real = np.array([0.0, 0.0, 1.0, 2.0])
    near = Nearest(np.zeros(4, int), np.array([0.0, 0.5, 0.5, 0.5]))
    found = neighbours(near, real, range(4), ["a", "b", "c", "d"])
    assert found["threshold"] == 0
    assert found["nearer_than_threshold"]["share"] == 1 / 4
    assert found["real_nearer_than_threshold"]["share"] == 2 / 4
