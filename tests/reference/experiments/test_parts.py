"""What each experiment does to data before and after it trains or samples."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the experiments need synfer-rt[reference]")

from reference.evaluation import statistics
from reference.experiments import (
    ablation,
    defaults,
    downstream,
    label_quality,
    long_tail,
    photo_layouts,
)
from reference.experiments.setting import Setting
from reference.experiments.training import TrainingSet, one_hot
from reference.tasks import CLASSES
from synfer_rt.judging.voting import Opinion, vote


def test_a_row_of_the_ablation_adds_one_thing_to_the_row_it_is_compared_with() -> None:
    pairs = ablation.recipes({"text": 0.3, "latent": 0.05})
    rows = {row.name: row for row, _ in pairs}
    assert len(rows) == len(pairs) == 10
    assert {row.layouts for row in rows.values()} == {"none", "noised", "inverted"}
    guidance = {"form", "strength"}
    for row, before in pairs[1:]:
        assert before is not None
        fields = dataclasses.asdict(row).items()
        changed = {k for k, v in fields if v != getattr(rows[before], k)} - {"name"}
        assert changed in ({"aus"}, {"layouts"}, {"guidance"}, guidance)


def test_a_face_is_its_own_photos_when_no_other_is_nearer() -> None:
    photos = np.array([[0.0, 0], [4, 0], [0, 4]])
    faces = np.array([[0.5, 0], [3, 1], [3, 1]])
    own = np.array([0, 1, 2])
    assert photo_layouts.own_is_nearest(faces, own, photos).tolist() == [True, True, False]


def test_label_noise_replaces_exactly_its_part_by_wrong_labels() -> None:
    truth = np.arange(200) % 8
    noisy = label_quality.with_noise(truth, 0.25, np.random.default_rng(0))
    assert (noisy != truth).sum() == 50 and noisy.min() >= 0 and noisy.max() < 8
    assert len(np.unique((noisy - truth)[noisy != truth] % 8)) == 7


def test_augmented_images_are_others_of_the_same_kind() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    changed = label_quality.augmented_twice(images, 1)
    assert changed.shape == images.shape and changed.dtype == np.uint8
    assert (changed != images).mean() > 0.5
    assert np.array_equal(changed, label_quality.augmented_twice(images, 1))


def a_disc() -> np.ndarray:
    """A bright disc of 8 pixels' radius left of the middle of a ramp, uint8 [64, 64, 3]."""
    y, x = np.mgrid[:64, :64]
    inside = (y - 31.5) ** 2 + (x - 19.5) ** 2 < 64
    return np.repeat(np.where(inside, 250, 40 + x)[..., None], 3, 2).astype(np.uint8)


def test_every_corruption_changes_an_image_and_keeps_its_size() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    made = {name: label_quality.spoilt(images, how) for name, how in label_quality.UNSEEN.items()}
    assert len(made) == 4
    for changed in made.values():
        assert changed.shape == images.shape and changed.dtype == np.uint8
        assert (changed != images).mean() > 0.8


def test_detail_finer_than_16_pixels_is_gone() -> None:
    fine = np.zeros((1, 64, 64, 3), np.uint8)
    fine[:, :, ::2] = 200
    coarse = label_quality.spoilt(fine, label_quality.UNSEEN["detail of 16 pixels"])
    assert coarse.std() < 10


def test_a_turn_is_counterclockwise_by_20_degrees_and_leaves_no_empty_corner() -> None:
    (turned,) = label_quality.spoilt(a_disc()[None], label_quality._turned)
    y, x = np.nonzero(turned[..., 0] > 180)
    angle = np.degrees(np.arctan2(y.mean() - 31.5, 31.5 - x.mean()))
    corners = turned[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert angle == pytest.approx(20, abs=2) and corners.min() > 40


def test_a_loose_crop_shows_the_face_smaller_within_a_reflected_border() -> None:
    (loose,) = label_quality.spoilt(a_disc()[None], label_quality._loose)
    bright = (loose[..., 0] > 180).sum() / (a_disc()[..., 0] > 180).sum()
    assert bright == pytest.approx(0.72**2, rel=0.07) and loose.min() > 25
    assert np.array_equal(loose[:, 8], loose[:, 10])


def test_accepting_less_leaves_the_surer_and_righter() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 8, 600)
    sure = rng.random(600)
    said = np.where(rng.random(600) < sure, truth, (truth + 1) % 8)
    probabilities = one_hot(said) * sure[:, None] + (1 - sure[:, None]) / 8
    verdicts = vote([Opinion("one", "affectnet-8", probabilities)], "affectnet-8", [None] * 600)
    curve = label_quality.coverage_curve(verdicts, truth, np.arange(600))
    assert curve[-1][0] == 1 and curve[0][0] < 0.3
    assert curve[0][1] > curve[-1][1] + 0.2


def test_a_label_that_the_vote_replaced_is_trained_on_as_a_distribution() -> None:
    probabilities = np.full((2, 8), 0.1, np.float32)
    made = {
        "images": np.zeros((2, 4, 4, 3), np.uint8),
        "requested": np.array([1, 2]),
        "label": np.array([1, 5]),
        "probabilities": probabilities,
    }
    faces = downstream.synthetic(made)
    assert np.array_equal(faces.targets, [one_hot(np.array([1]))[0], probabilities[1]])


def test_a_tail_has_the_shape_of_raf_db() -> None:
    classes = np.random.default_rng(0).permutation(np.repeat(np.arange(8), 120))
    rows = long_tail.tail(classes, long_tail.tail_counts([classes], 100))
    counts = {CLASSES[c]: n for c, n in enumerate(np.bincount(classes[rows], minlength=8))}
    assert counts["happy"] == 100 and counts["contempt"] == 0
    assert counts["fear"] == round(100 * 281 / 4772) and counts["neutral"] == 53


def test_tails_shrink_to_what_every_group_has_and_keep_two_of_each_class() -> None:
    counts = long_tail.tail_counts([np.repeat(np.arange(8), n) for n in (90, 30)], 999)
    assert counts["happy"] == 30 and counts["fear"] == 2
    assert long_tail.tail_counts([np.repeat(np.arange(8), 30)], 20)["happy"] == 20


def test_no_two_repetitions_fill_up_with_the_same_samples(monkeypatch) -> None:
    drawn: dict[str, list[int]] = {"fear": [], "sad": []}

    def sample_set(sampler, recipe, count, seed, work, first):
        (label,) = recipe.labels
        drawn[label] += range(first, first + count)
        accepted = np.arange(count) > 0
        images = np.zeros((count, 2, 2, 3), np.uint8)
        return {"images": images, "requested": np.full(count, 1), "accepted": accepted}

    monkeypatch.setattr(long_tail, "sample_set", sample_set)
    setting = Setting(None, Path(), Path(), Path(), Path(), "onnxruntime-cpu", 1)
    monkeypatch.setattr(Setting, "sampler", None)
    for repetition in range(3):
        made = long_tail.sampled(setting, {"happy": 6, "fear": 2, "sad": 5}, repetition)
        assert len(made) == (4 - 1) + (1 - 1)
    assert drawn == {"fear": list(range(12)), "sad": list(range(3))}


def test_balanced_accuracy_counts_classes_alike() -> None:
    classes = np.array([0] * 9 + [1])
    assert long_tail.balanced_accuracy(np.zeros(10, int), classes) == 0.5


def test_a_tail_is_written_as_class_folders(tmp_path) -> None:
    from synfer_rt.data.datasets import read_dataset

    faces = TrainingSet(np.zeros((3, 8, 8, 3), np.uint8), one_hot(np.array([1, 1, 4])))
    long_tail.write_folders(faces, tmp_path)
    assert read_dataset(tmp_path, "folders").counts() == {"happy": 2, "fear": 1}


def test_a_curve_changes_one_setting_and_holds_the_default() -> None:
    base = defaults.Choice(0.8, 3.25, 1.0, 12, "dpmpp-2m")
    for name, choices in defaults.curves(base).items():
        assert base in choices
        others = [{k: v for k, v in vars(c).items() if k != name} for c in choices]
        assert all(one == others[0] for one in others)
        assert len({getattr(c, name) for c in choices}) == len(choices)


def test_a_setting_is_compared_with_the_default_by_pairs() -> None:
    before = np.arange(40) % 2 == 0
    after = before | (np.arange(40) == 1)
    gain = defaults.compared({"judge": after}, {"judge": before})["judge"]
    assert gain == statistics.gain(after, before) and gain[0] == pytest.approx(1 / 40)


def test_sets_together_are_judged_as_one() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 8, 40)
    sets = [
        [Opinion(name, "affectnet-8", rng.dirichlet(np.ones(8), 40)) for name in ("a", "b")]
        for _ in range(2)
    ]
    people = np.arange(40) // 2
    whole = label_quality.accuracies(
        label_quality.together(sets), np.tile(truth, 2), np.tile(people, 2), "affectnet-8"
    )
    parts = [label_quality.accuracies(one, truth, people, "affectnet-8") for one in sets]
    assert whole["images"] == 80
    for name in ("a", "b"):
        mean = np.mean([part["members"][name][0] for part in parts])
        assert whole["members"][name][0] == pytest.approx(mean)
    assert whole["vote"][0] == pytest.approx(np.mean([part["vote"][0] for part in parts]))
