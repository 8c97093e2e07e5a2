"""How near images lie to the renders that were trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

from reference import classifiers, renders
from reference.evaluation import copies
from reference.evaluation.copies import COPIES, HELD
from synfer_rt.evaluation.neighbours import Nearest


def some_renders(count: int = 40) -> renders.Renders:
    images = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)
    return renders.Renders(images, {"identity": np.arange(count)}, "key")


def test_training_features_leave_out_held_out_people_and_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, data, calls = classifiers.NETWORKS["judge"].build().eval(), some_renders(), []
    real = copies.pooled_features
    monkeypatch.setattr(copies, "pooled_features", lambda *a: calls.append(1) or real(*a))
    first, again = (copies.training_features(judge, data, tmp_path) for _ in range(2))
    assert len(calls) == 1 and np.array_equal(first, again)
    expected = real(judge, data.images[np.arange(40) % 16 != 0])
    assert np.allclose(first, expected, atol=1e-5)
    other = classifiers.NETWORKS["judge"].build().eval()
    assert not np.allclose(copies.training_features(other, data, tmp_path), first)


def test_a_mirrored_copy_is_a_copy() -> None:
    judge, images = classifiers.NETWORKS["judge"].build().eval(), some_renders(6).images
    training = copies.pooled_features(judge, images)
    queries = np.stack([images[4], images[2][:, ::-1]])
    found = copies.nearest_render(judge, queries, training)
    assert found.rows.tolist() == [4, 2] and np.allclose(found.distances, 0, atol=1e-5)


def test_features_that_hold_the_person_find_them_and_others_do_by_chance() -> None:
    rng = np.random.default_rng(0)
    people = np.append(np.repeat(np.arange(100), 2), 100)  # the last has no other image
    known = copies.same_person(people[:, None] + 0.1 * rng.random((201, 1)), people)
    assert known["share"][0] == 1 and known["chance"] == pytest.approx(1 / 200)
    assert copies.same_person(rng.random((201, 3)), people)["share"][0] < 0.1


def near(distances: np.ndarray) -> Nearest:
    return Nearest(np.arange(len(distances)), distances)


def compared(shift: float) -> dict:
    rng = np.random.default_rng(0)
    sets = {
        "samples": near(1 + shift + 0.2 * rng.random(200)),
        HELD: near(1 + 0.2 * rng.random(200)),
        COPIES: near(np.linspace(0, 1, 101)),
    }
    return copies.compared(sets, ["samples"], np.arange(101) + (np.arange(101) > 90))


def test_near_is_what_most_known_copies_are() -> None:
    found = compared(-0.15)
    assert found["within"] == pytest.approx(0.95)
    assert found["originals_found"] == pytest.approx(91 / 101)
    assert found["sets"][COPIES]["as_near"] == 96 and found["sets"][HELD]["as_near"] == 0
    assert 80 < found["sets"]["samples"]["as_near"] < 120


def test_the_side_is_the_one_that_was_tested() -> None:
    low, high = np.linspace(0, 1, 99), np.linspace(2, 3, 101)
    sets = {
        "samples": near(np.concatenate([low, high])),
        HELD: near(np.concatenate([np.linspace(1.5, 1.9, 99), 3 + high])),
        COPIES: near(np.linspace(0, 1, 101)),
    }
    found = copies.compared(sets, ["samples"], np.arange(101))
    found["sets"]["samples"]["median"] = found["sets"][HELD]["median"]
    assert found["sets"]["samples"]["farther"] < 0.3
    assert "lie nearer than" in copies.reading(found)[0]


@pytest.mark.parametrize(
    "shift, said",
    [(-0.15, "lie nearer than"), (0.15, "lie farther than"), (0.0, "nor farther than")],
)
def test_a_sentence_says_no_more_than_the_test(shift: float, said: str) -> None:
    found = compared(shift)
    (sentence,) = copies.reading(found)
    assert sentence.startswith("Samples ") and said in sentence
    one = found["sets"]["samples"]
    assert f"p = {one['p']:.2g}" in sentence and f"{one['as_near']} of 200 lie within" in sentence
