"""Which shards of a run are still to be made, and when to give up.

Shards are given out one by one, the lowest number first. So what a lost worker had comes next, and
what a worker could not make: with quotas, others may wait for it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable

from synfer_rt.errors import UserError

ATTEMPTS = 3
"""How often a shard is tried that ends in an error; what is wrong then is no accident."""
LOSSES = 10
"""How many workers may end in a row before any shard is finished. More may if there are more
workers, twice as many as there were."""


class Assignment:
    """The shards of a run that are not finished."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._waiting = sorted(numbers)  # which is a heap
        self._out: set[int] = set()
        self._failures: Counter[int] = Counter()
        self._losses = 0

    @property
    def waiting(self) -> int:
        """The number of shards that nobody has."""
        return len(self._waiting)

    @property
    def unfinished(self) -> int:
        """The number of shards that are not finished."""
        return len(self._waiting) + len(self._out)

    def take(self) -> int | None:
        """Give the next shard to a worker; None if others have what is left."""
        if not self._waiting:
            return None
        number = heapq.heappop(self._waiting)
        self._out.add(number)
        return number

    def finished(self, number: int) -> None:
        """A worker has made the shard."""
        self._out.remove(number)
        self._losses = 0

    def failed(self, number: int, why: Exception) -> None:
        """A worker could not make the shard. Raises `why` at the last attempt."""
        self._failures[number] += 1
        if self._failures[number] >= ATTEMPTS:
            raise why
        self.back(number)

    def back(self, number: int) -> None:
        """The shard is not finished; another worker may take it."""
        self._out.remove(number)
        heapq.heappush(self._waiting, number)

    def end(self, count: int) -> None:
        """The run ends with so many shards; nobody needs those after them."""
        self._waiting = sorted(number for number in self._waiting if number < count)

    def lost(self, why: str, workers: int) -> None:
        """One of so many workers has ended, for this reason, though its node is alive.

        Raises UserError after too many in a row.
        """
        self._losses += 1
        if self._losses > max(LOSSES, 2 * workers):
            raise UserError(
                f"{self._losses} workers ended one after the other, and no shard was finished "
                f"meanwhile (the last: {why}); see Ray's logs for the reason. If it is memory, "
                "give workers less at once with `batch`, or more cores, so that fewer share a "
                "node, with `threads`. Then continue with `resume=True`."
            )
