"""The vote: the mean of the opinions, the label that it gives, and agreement."""

import numpy as np
import pytest

from synfer_rt.judging.voting import Opinion, average, vote
from synfer_rt.vocabulary import label_schemes

MAPPING = {"bored": {"neutral": 1.0}, "awed": {"surprise": 0.75, "fear": 0.25}}
EIGHT = label_schemes.scheme("affectnet-8")


def opinion(annotator: str = "a", scheme: str = "affectnet-8", **shares: float) -> Opinion:
    """One image's opinion: these shares, the rest spread over the other classes."""
    classes = label_schemes.scheme(scheme)
    rest = (1 - sum(shares.values())) / max(1, len(classes) - len(shares))
    return Opinion(annotator, scheme, np.array([[shares.get(name, rest) for name in classes]]))


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


class TestMapping:
    def mapped(self, *shares: float) -> Opinion:
        return Opinion("m", "happy,bored,awed,lost", np.array([shares]), MAPPING)

    def test_its_classes_vote_for_those_that_they_are(self):
        (found,) = vote([self.mapped(0.1, 0.1, 0.8, 0.0)], "affectnet-8", ["surprise"])
        assert (found.label, found.agrees) == ("surprise", True)
        assert found.probabilities["surprise"] == pytest.approx(0.6)
        assert found.probabilities["fear"] == pytest.approx(0.2)

    def test_who_has_no_class_for_a_label_abstains_on_it(self):
        members = [self.mapped(0.1, 0.8, 0.1, 0.0), opinion(anger=0.9)]
        (found,) = vote(members, "affectnet-8", ["anger"])
        assert (found.label, found.agrees) == ("anger", True)

    def test_what_is_left_out_has_no_say(self):
        (found,) = vote([self.mapped(0.2, 0.1, 0.1, 0.6)], "affectnet-8", [None])
        assert found.probabilities["happy"] == pytest.approx(0.5)

    def test_it_says_what_it_sees_in_its_own_words(self):
        assert self.mapped(0.2, 0.5, 0.2, 0.1).best(0) == "bored"


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
