import numpy as np
import pytest

from synfer_rt.errors import UserError
from synfer_rt.judging.acceptance import RunningQuantile, acceptance
from synfer_rt.judging.quotas import Quotas, next_round
from synfer_rt.judging.voting import Opinion, Verdict, average, vote
from synfer_rt.vocabulary import label_schemes

EIGHT = label_schemes.scheme("affectnet-8")


def opinion(annotator: str = "a", scheme: str = "affectnet-8", **shares: float) -> Opinion:
    """One image's opinion: these shares, the rest spread over the other classes."""
    classes = label_schemes.scheme(scheme)
    rest = (1 - sum(shares.values())) / max(1, len(classes) - len(shares))
    return Opinion(annotator, scheme, np.array([[shares.get(name, rest) for name in classes]]))


def verdict(label: str, confidence: float) -> Verdict:
    return Verdict(label, {label: confidence}, False)


class TestAverage:
    def test_is_the_mean_by_class_name_whatever_the_order_of_the_schemes(self):
        row = average(
            [opinion(happy=0.9), opinion("b", "hsemotion-8", happy=0.5, sad=0.5)], "raf-db"
        )
        classes = label_schemes.scheme("raf-db")
        assert row.shape == (1, 7)
        assert row[0, classes.index("happy")] > row[0, classes.index("sad")] > 0.2
        assert row.sum() == pytest.approx(1)

    def test_of_the_same_scheme_is_the_plain_mean(self):
        first, second = opinion(happy=0.9), opinion("b", happy=0.1)
        mean = (first.probabilities + second.probabilities) / 2
        np.testing.assert_allclose(average([first, second], "affectnet-8"), mean)

    def test_a_member_without_a_class_abstains_on_it(self):
        seven = opinion("b", "affectnet-7", happy=1.0)
        row = average([opinion(contempt=0.8), seven], "affectnet-8")[0]
        assert row[EIGHT.index("contempt")] == pytest.approx(0.8)
        assert row[EIGHT.index("happy")] == pytest.approx((0.2 + 0.2 / 7) / 2)
        assert row.sum() == pytest.approx(1)

    def test_a_class_that_nobody_knows_has_no_probability(self):
        row = average([opinion(scheme="affectnet-7", sad=0.4)], "affectnet-8")[0]
        assert row[EIGHT.index("contempt")] == 0
        assert row.sum() == pytest.approx(1)

    def test_without_opinions_there_is_none(self):
        with pytest.raises(ValueError, match="no opinion"):
            average([], "affectnet-8")


class TestVote:
    def test_agreement_keeps_the_wanted_label(self):
        (found,) = vote([opinion(happy=0.6), opinion("b", happy=0.8)], "affectnet-8", ["happy"])
        assert (found.label, found.rectified) == ("happy", False)
        assert found.confidence == pytest.approx(0.7)

    def test_disagreement_replaces_it_by_the_average_distribution(self):
        members = [opinion(sad=0.9), opinion("b", happy=0.6)]
        (found,) = vote(members, "affectnet-8", ["happy"])
        assert (found.label, found.rectified) == ("sad", True)
        mean = (members[0].probabilities + members[1].probabilities)[0] / 2
        assert list(found.probabilities.values()) == pytest.approx(mean.tolist(), abs=1e-6)

    def test_on_request_the_label_stays_and_says_whether_it_is_the_best(self):
        members = [opinion(sad=0.9)]
        stays, agreed = vote(
            [Opinion("a", "affectnet-8", np.repeat(members[0].probabilities, 2, 0))],
            "affectnet-8",
            ["happy", "sad"],
            rectify=False,
        )
        assert (stays.label, stays.rectified, stays.best) == ("happy", False, "sad")
        assert not stays.agrees and agreed.agrees

    def test_without_a_wanted_label_nothing_is_rectified_or_agreed_on(self):
        (found,) = vote([opinion(fear=0.7)], "affectnet-8", [None])
        assert (found.label, found.rectified, found.agrees) == ("fear", False, None)

    @pytest.mark.parametrize(
        ("others", "agrees"),
        [
            ([dict(happy=0.4, sad=0.3), dict(happy=0.9)], True),
            ([dict(happy=0.4, sad=0.3), dict(fear=0.5)], True),  # two of three
            ([dict(sad=0.26), dict(fear=0.26)], False),  # three that see three things
            ([dict(sad=0.26, happy=0.25)] * 2, False),  # outvoted, though the mean is happy
        ],
    )
    def test_agreement_takes_the_mean_and_most_annotators(self, others: list, agrees: bool):
        members = [opinion(happy=0.9), *(opinion(str(i), **p) for i, p in enumerate(others))]
        (found,) = vote(members, "affectnet-8", ["happy"])
        assert (found.label, found.rectified, found.agrees) == ("happy", False, agrees)

    def test_of_two_annotators_both_have_to_see_it(self):
        (found,) = vote([opinion(happy=0.9), opinion("b", sad=0.4)], "affectnet-8", ["happy"])
        assert (found.best, found.agrees) == ("happy", False)

    def test_who_lacks_the_class_has_no_say_in_agreement(self):
        members = [opinion(contempt=0.9), opinion("b", "raf-db", happy=0.9)]
        (found,) = vote(members, "affectnet-8", ["contempt"])
        assert (found.label, found.agrees) == ("contempt", True)

    def test_who_cannot_tell_two_classes_apart_sees_neither(self):
        member = opinion(happy=0.4 + 1e-9, sad=0.4)
        (found,) = vote([member], "affectnet-8", ["happy"])
        assert (found.label, found.agrees) == ("happy", False)

    def test_of_equally_likely_classes_the_wanted_one_wins(self):
        (found,) = vote([opinion(happy=0.5, sad=0.5)], "affectnet-8", ["sad"])
        assert (found.label, found.rectified) == ("sad", False)

    def test_does_not_depend_on_the_batch(self):
        rng = np.random.default_rng(0)
        rows = rng.dirichlet(np.ones(8), 9)
        together = vote([Opinion("a", "affectnet-8", rows)], "affectnet-8", [None] * 9)
        alone = [vote([Opinion("a", "affectnet-8", r[None])], "affectnet-8", [None]) for r in rows]
        assert together == [found for (found,) in alone]


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
        with pytest.raises(UserError, match="--accept-rate"):
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
        with pytest.raises(UserError):
            acceptance(*wrong)


def run(quotas: Quotas, count: int = 10**6) -> list[tuple[str, bool]]:
    """A run of at most `count` samples: a pure function of index and label decides."""
    made: list[tuple[str, bool]] = []
    while not quotas.finished and len(made) < count:
        for i in range(len(made), min(quotas.end, count)):
            label = quotas.label(i)
            made.append((label, (i * 7919 + len(label)) % 3 == 0))
        for sample in made[quotas.counted :]:
            quotas.count(*sample)
    return made


class TestQuotas:
    def test_a_round_asks_for_what_is_missing_the_classes_taking_turns(self):
        asked = next_round({"happy": 1}, {"happy": 3, "sad": 1}, 10)
        assert list(asked) == ["happy", "sad", "happy"]

    @pytest.mark.parametrize("budget", [0, 1, 5, 17, 99])
    def test_a_round_is_as_if_the_classes_were_asked_in_turn(self, budget: int):
        accepted, quota = {"sad": 2, "fear": 9}, {"happy": 7, "sad": 4, "fear": 3, "anger": 7}
        lacks = {"happy": 7, "sad": 2, "anger": 7}
        turns = [name for turn in range(7) for name, count in lacks.items() if turn < count]
        asked = next_round(accepted, quota, budget)
        assert list(asked) == turns[:budget] and asked.size == min(budget, 16)

    def test_a_round_of_billions_takes_no_memory(self):
        quotas = Quotas({"happy": 10**30, "sad": 10**9}, 10**31)
        assert quotas.end == 10**30 + 10**9
        assert [quotas.label(i) for i in (0, 1, 2 * 10**9 - 1, 2 * 10**9 + 1)] == [
            "happy", "sad", "sad", "happy",
        ]  # fmt: skip

    def test_a_budget_cuts_a_round(self):
        assert list(next_round({}, {"happy": 3, "sad": 3}, 3)) == ["happy", "sad", "happy"]
        assert list(next_round({"happy": 3}, {"happy": 3}, 5)) == []

    def test_ends_when_every_class_has_its_quota_exactly(self):
        quotas = Quotas({"happy": 20, "sad": 5}, 1000)
        made = run(quotas)
        assert quotas.accepted == {"happy": 20, "sad": 5}
        assert not quotas.missing() and len(made) < 1000

    def test_ends_with_the_budget_and_says_what_is_missing(self):
        quotas = Quotas({"happy": 20}, 30)
        made = run(quotas)
        assert len(made) == 30
        assert quotas.missing() == {"happy": 20 - sum(accepted for _, accepted in made)}

    def test_an_interrupted_run_goes_on_as_if_it_had_not_been(self):
        whole = run(Quotas({"happy": 9, "sad": 4, "fear": 7}, 500))
        for stop in (1, 13, 24, len(whole)):
            quotas = Quotas({"happy": 9, "sad": 4, "fear": 7}, 500)
            for sample in whole[:stop]:
                quotas.count(*sample)
            rest = []
            for i in range(stop, min(quotas.end, len(whole))):
                rest.append(quotas.label(i))
            assert rest == [label for label, _ in whole[stop : stop + len(rest)]]
