"""Which labels to request next, so that each class gets a given number of accepted images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


class Round:
    """The `size` labels of a round, in their order; computed on demand, since it may be huge."""

    def __init__(self, missing: Mapping[str, int], budget: int) -> None:
        # In each block the same classes take turns; a block ends when one of them has enough.
        self._blocks: list[tuple[int, list[str]]] = []
        turn = end = 0
        for turns in sorted({count for count in missing.values() if count > 0}):
            lacking = [label for label, count in missing.items() if count >= turns]
            end += (turns - turn) * len(lacking)
            self._blocks.append((end, lacking))
            turn = turns
        self.size = max(0, min(budget, end))

    def __getitem__(self, index: int) -> str:
        """The label of index 0 to `size` - 1. Raises IndexError for another."""
        begin = 0
        for end, lacking in self._blocks:
            if begin <= index < min(end, self.size):
                return lacking[(index - begin) % len(lacking)]
            begin = end
        raise IndexError(index)

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(self.size))


def next_round(accepted: Mapping[str, int], quota: Mapping[str, int], budget: int) -> Round:
    """The labels to request next, so that each class gets `quota` accepted images.

    The round has as many of each class as it still lacks, the classes taking turns, and at most
    `budget` in all. It is empty if all quotas are met. A round never requests more than is missing,
    so a class ends above its quota only by images that were rectified into it.

    Index i of a round requests the i-th label of the round, and a round depends only on the rounds
    before it. So indices have no gaps, each is made once, and a run is the same at any batch size
    (a batch ends where its round ends) and after any interruption (the rounds follow from the
    records).
    """
    return Round(missing(accepted, quota), budget)


def missing(accepted: Mapping[str, int], quota: Mapping[str, int]) -> dict[str, int]:
    """How many accepted images each class lacks; empty if none lacks any."""
    lacks = {label: count - accepted.get(label, 0) for label, count in quota.items()}
    return {label: count for label, count in lacks.items() if count > 0}


class Quotas:
    """The labels that a run with quotas requests, by index, given what was accepted before.

    `budget` is the largest number of images of the run. `label(i)` is defined once `count` was
    called for all samples of the rounds before that of `i`, in their order.
    """

    def __init__(self, quota: Mapping[str, int], budget: int) -> None:
        self.quota, self.budget = dict(quota), budget
        self.accepted = dict.fromkeys(quota, 0)
        self.counted = self._begin = 0
        self._round = next_round(self.accepted, quota, budget)

    @property
    def end(self) -> int:
        """The first index after the current round, at which a batch must end."""
        return self._begin + self._round.size

    def piece(self, index: int, size: int) -> range:
        """Of the current round, cut into pieces of `size` and a last one, that with `index`."""
        first = index - (index - self._begin) % size
        return range(first, min(first + size, self.end))

    @property
    def finished(self) -> bool:
        """Whether every quota is met, or the budget is used up."""
        return not self._round.size

    def label(self, index: int) -> str:
        """The label to request for an index of the current round."""
        return self._round[index - self._begin]

    def count(self, label: str, accepted: bool) -> None:
        """Count the next sample: its final label, and whether it was accepted."""
        self.counted += 1
        if accepted:
            self.accepted[label] = self.accepted.get(label, 0) + 1
        if self.counted == self.end:
            self._begin = self.counted
            self._round = next_round(self.accepted, self.quota, self.budget - self.counted)

    def missing(self) -> dict[str, int]:
        """How many accepted images each class still lacks; empty if no class lacks any."""
        return missing(self.accepted, self.quota)
