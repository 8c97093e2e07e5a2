"""Calibrated votes: temperatures by likelihood, label sets with the coverage that they state."""

from __future__ import annotations

import math

import numpy as np
import pytest

from synfer_rt.errors import UserError
from synfer_rt.judging import calibration
from synfer_rt.judging.calibration import Calibration, threshold
from synfer_rt.judging.fitting import fit, parts
from synfer_rt.judging.temperature import tempered
from synfer_rt.judging.voting import Opinion, vote
from synfer_rt.vocabulary import label_schemes

SCHEME = "affectnet-7"
CLASSES = label_schemes.scheme(SCHEME)


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Distributions [count, 7], and a true class drawn from each."""
    draw = np.random.default_rng(seed)
    shares = draw.dirichlet(np.full(7, 0.4), count)
    truth = (shares.cumsum(1) > draw.random((count, 1))).argmax(1)
    return shares, truth


class TestThreshold:
    def test_is_the_quantile_of_split_conformal_prediction(self):
        """The least score with ceil((n + 1) c) of n nonconformities 1 - p at or below it."""
        draw = np.random.default_rng(3)
        for count in (9, 10, 19, 57):
            scores = sorted(draw.random(count).tolist())
            for coverage in (0.5, 0.8, 0.9):
                rank = math.ceil(round((count + 1) * coverage, 9))
                wanted = 1 - sorted(1 - p for p in scores)[rank - 1]
                assert threshold(scores, coverage) == pytest.approx(wanted)

    def test_is_0_for_too_few_images(self):
        assert calibration.images_needed(0.9) == 9
        assert threshold([0.5] * 8, 0.9) == 0 and threshold([0.5] * 9, 0.9) == 0.5
        found = Calibration({}, 1.0, {"happy": [0.5] * 9, "sad": [0.9] * 8, "fear": []})
        assert found.too_few(0.9) == {"sad": 8, "fear": 0}
        sets = found.at(0.9)
        assert sets.label_set({"happy": 0.4, "sad": 0.0, "fear": 0.0}) == ("sad", "fear")

    @pytest.mark.parametrize("coverage", [0, 1, 1.5, "most", True])
    def test_of_an_impossible_coverage_is_refused(self, coverage: object):
        with pytest.raises(UserError, match="`coverage` must be above 0 and below 1"):
            Calibration({}, 1.0, {}).at(coverage)  # pyright: ignore[reportArgumentType]


class TestCoverage:
    def test_of_each_class_is_the_stated_one(self):
        """Within 4 deviations of held-out images, and of those that fitted the threshold."""
        shares, truth = drawn(24_000, 4)
        noise = np.random.default_rng(5).normal(0, 0.7, shares.shape)
        harsh = tempered(np.exp(np.log(shares + 1e-9) + noise), 0.5)
        labels = [CLASSES[i] for i in truth]
        names = list(map(str, range(len(labels))))

        def members(rows: slice) -> list[Opinion]:
            return [
                Opinion("harsh", SCHEME, harsh[rows] / harsh[rows].sum(1, keepdims=True)),
                Opinion("right", SCHEME, shares[rows]),
            ]

        half = len(labels) // 2
        fitted = fit(members(slice(half)), SCHEME, names[:half], labels[:half])
        assert fitted.losses[1] < fitted.losses[0]
        rest = slice(half, None)
        for coverage in (0.8, 0.9):
            sets = fitted.calibration.at(coverage)
            said = vote(members(rest), SCHEME, [None] * half, calibrated=sets)
            held = np.array(
                [y in (v.label_set or ()) for y, v in zip(labels[rest], said, strict=True)]
            )
            for i, name in enumerate(CLASSES):
                mine = held[truth[rest] == i]
                fitting = len(fitted.calibration.scores[name])
                deviation = math.sqrt(coverage * (1 - coverage) * (1 / len(mine) + 1 / fitting))
                assert len(mine) > 1000
                assert abs(mine.mean() - coverage) < 4 * deviation, name
            sizes = [len(v.label_set or ()) for v in said]
            assert 1 < np.mean(sizes) < 4  # they say something

    def test_images_fit_either_temperatures_or_thresholds(self):
        labels = [CLASSES[i % 3] for i in range(30)]
        names = [f"{i}.png" for i in range(30)]
        chosen = parts(names, labels)
        assert chosen.sum() == 3 * 2  # a quarter of ten, rounded down
        back = parts(names[::-1], labels[::-1])
        np.testing.assert_array_equal(back[::-1], chosen)
        found = fit([Opinion("a", SCHEME, np.full((30, 7), 1 / 7))], SCHEME, names, labels)
        assert {name: len(s) for name, s in found.calibration.scores.items()} == {
            name: 8 if name in labels else 0 for name in CLASSES
        }

    def test_an_annotator_is_fitted_on_the_classes_that_it_knows(self):
        labels = ["happy", "contempt"] * 20
        names = list(map(str, range(40)))
        members = [
            Opinion("eight", "affectnet-8", np.full((40, 8), 1 / 8)),
            Opinion("seven", "affectnet-7", np.full((40, 7), 1 / 7)),
        ]
        assert fit(members, "affectnet-8", names, labels).images == {"eight": 10, "seven": 5}

    @pytest.mark.parametrize(("images", "is_fitted"), [(124, False), (128, True)])
    def test_few_images_fit_no_temperature(self, images: int, is_fitted: bool):
        labels, names = ["happy"] * images, list(map(str, range(images)))  # a quarter is fitted on
        shares = np.full((images, 7), 0.1 / 6)
        shares[:, CLASSES.index("happy")] = 0.9
        found = fit([Opinion("right", SCHEME, shares)], SCHEME, names, labels).calibration
        assert (found.temperatures["right"] != 1) == is_fitted
