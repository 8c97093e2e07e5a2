"""Which shards are in a part, and which of them are gaps of a run."""

from __future__ import annotations

import pytest

from synfer_rt.data.writers.shards import Part, joined, part_of
from synfer_rt.errors import UserError


@pytest.mark.parametrize(
    "part", [(8, 8), (-1, 8), (0, 0), (1,), (0, 1, 2), (0.0, 2), (True, 2), "0/8", 3, None]
)
def test_a_part_is_two_numbers(part):
    with pytest.raises(UserError, match=r"`part` must be two whole numbers K and N with K from 0"):
        part_of(part)


@pytest.mark.parametrize(("shards", "parts"), [(10, 3), (3, 3), (2, 5), (0, 2)])
def test_each_shard_is_in_one_part(shards, parts):
    mine = [number for k in range(parts) for number in part_of((k, parts)).of(shards)]
    assert sorted(mine) == list(range(shards))
    assert all(number % parts == 1 for number in Part(1, parts).of(shards))


def test_what_lacks_is_one_range_or_a_list():
    assert joined([range(0, 4), range(4, 7)]) == range(7)
    assert joined([range(0, 2), range(3, 3), range(5, 7)]) == [0, 1, 5, 6]
    assert joined([]) == range(0)
