"""Verdicts are accepted by a part of each class, by a threshold, or by agreement."""

import numpy as np
import pytest

from synfer_rt.errors import UserError
from synfer_rt.judging.acceptance import RunningQuantile, acceptance
from synfer_rt.judging.voting import Verdict


def verdict(label: str, confidence: float) -> Verdict:
    return Verdict(label, {label: confidence}, False)


class TestRunningQuantile:
    def test_accepts_the_asked_share_of_every_class(self):
        rng = np.random.default_rng(1)
        accept = RunningQuantile(0.3)
        for label, hard in (("happy", 0.0), ("fear", 0.5)):
            confidences = (1 - hard) * rng.random(2000)
            taken = [accept(verdict(label, float(c))) for c in confidences]
            assert np.mean(taken) == pytest.approx(0.3, abs=0.03)

    def test_decides_from_the_samples_before_alone(self):
        rng = np.random.default_rng(2)
        verdicts = [verdict("sad", float(c)) for c in rng.random(50)]
        whole, resumed = RunningQuantile(0.5), RunningQuantile(0.5)
        decisions = [whole(v) for v in verdicts]
        for v in verdicts[:20]:
            resumed(v)
        assert [resumed(v) for v in verdicts[20:]] == decisions[20:]

    def test_a_rate_of_one_accepts_everything(self):
        accept = RunningQuantile(1.0)
        assert all(accept(verdict("sad", c)) for c in (0.9, 0.1, 0.5, 0.1))

    def test_does_not_round_a_share_up_for_floating_point(self):
        accept = RunningQuantile(0.07)
        for i in range(99):
            accept(verdict("sad", 0.5 + i / 1000))
        assert not accept(verdict("sad", 0.5 + 91.5 / 1000))  # seven of 100 are better

    @pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
    def test_refuses_a_rate_outside_its_range(self, rate):
        with pytest.raises(UserError, match="`accept_rate` must be above 0 and at most 1, got"):
            RunningQuantile(rate)


class TestAcceptance:
    def test_by_default_what_the_verdict_agrees_with(self):
        accept = acceptance()
        assert accept(Verdict("sad", {"sad": 0.3}, False, True)) is True
        assert accept(Verdict("sad", {"sad": 0.9}, True, False)) is False
        assert accept(Verdict("sad", {"sad": 0.9}, False)) is None  # nothing was asked

    def test_fixed(self):
        accept = acceptance(threshold=0.5)
        assert accept(verdict("sad", 0.5)) and not accept(verdict("sad", 0.49))

    @pytest.mark.parametrize(
        "wrong",
        [
            (0.5, 0.5),
            (None, 1.5),
            (2.0, None),
            ("0.5", None),
            (True, None),
            (None, "0.5"),
            (None, True),
        ],
    )
    def test_refuses_both_and_what_is_outside(self, wrong):
        with pytest.raises(UserError, match=r"`accept_rate`|`threshold`"):
            acceptance(*wrong)
