"""Which shards are given out, and when a run gives up."""

from __future__ import annotations

import random

import pytest

from synfer_rt.errors import UserError
from synfer_rt.ray.assignment import ATTEMPTS, LOSSES, Assignment


def test_shards_are_given_out_once_in_their_order():
    shards = Assignment([2, 5, 7])
    assert [shards.take() for _ in range(4)] == [2, 5, 7, None]
    assert shards.unfinished == 3
    for number in (5, 2, 7):
        shards.finished(number)
    assert shards.unfinished == 0


def test_what_a_lost_worker_had_comes_next():
    shards = Assignment(range(3))
    assert [shards.take(), shards.take()] == [0, 1]
    shards.back(0)
    assert [shards.take() for _ in range(3)] == [0, 2, None]
    shards.back(2)
    shards.back(1)
    assert [shards.take() for _ in range(3)] == [1, 2, None]


def test_a_run_may_end_before_its_last_shard():
    shards = Assignment(range(6))
    assert [shards.take(), shards.take()] == [0, 1]
    shards.end(3)
    assert [shards.take(), shards.take()] == [2, None] and shards.unfinished == 3


def test_a_shard_that_failed_comes_next_and_its_last_attempt_says_why():
    shards = Assignment(range(3))
    for attempt in range(1, ATTEMPTS):
        assert shards.take() == 0
        shards.failed(0, UserError(f"attempt {attempt}"))
    assert shards.take() == 0
    with pytest.raises(UserError, match=rf"^attempt {ATTEMPTS}$"):
        shards.failed(0, UserError(f"attempt {ATTEMPTS}"))


def test_other_shards_do_not_add_to_the_attempts_of_one():
    shards = Assignment(range(ATTEMPTS + 1))
    taken = [shards.take() for _ in range(ATTEMPTS)]
    for number in taken:
        assert number is not None
        shards.failed(number, UserError("once"))
    assert shards.unfinished == ATTEMPTS + 1


def test_workers_that_end_in_a_row_end_the_run():
    shards = Assignment(range(3))
    for _ in range(LOSSES):
        shards.lost("signal 9", 2)
    with pytest.raises(
        UserError, match=rf"^{LOSSES + 1} workers ended.*the last: signal 9.*resume"
    ):
        shards.lost("signal 9", 2)


def test_a_large_crew_may_lose_more():
    shards = Assignment(range(3))
    for _ in range(100):
        shards.lost("a switch failed", 50)
    with pytest.raises(UserError, match="101 workers"):
        shards.lost("a switch failed", 50)


def test_a_shard_that_is_finished_makes_up_for_losses():
    shards = Assignment(range(100))
    for _ in range(3 * LOSSES):
        number = shards.take()
        assert number is not None
        shards.lost("signal 9", 1)
        shards.finished(number)
    assert shards.unfinished == 100 - 3 * LOSSES


def test_whatever_happens_each_shard_is_finished_once():
    random.seed(5)
    shards, out, made = Assignment(range(50)), set[int](), list[int]()
    while shards.unfinished:
        if (number := shards.take()) is not None:
            out.add(number)
        number = random.choice(sorted(out))
        out.remove(number)
        if random.random() < 0.5:
            shards.back(number)
        else:
            shards.finished(number)
            made.append(number)
    assert sorted(made) == list(range(50)) and shards.take() is None
