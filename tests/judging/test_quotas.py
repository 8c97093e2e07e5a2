"""A run with quotas requests what each class lacks, until all is there or the budget is used up."""

import pytest

from synfer_rt.judging.quotas import Quotas, next_round


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
