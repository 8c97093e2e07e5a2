"""NVML as its reference describes it, without a GPU: a module in place of nvidia-ml-py's.

https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class NVMLError(Exception):
    """NVML's error, such as Not Supported."""


@dataclass
class Rates:
    gpu: int
    memory: int = 0


@dataclass
class Memory:
    total: int
    free: int
    used: int


@dataclass
class Card:
    """What one GPU tells: percent, bytes, milliwatts and millijoules."""

    uuid: str = "GPU-1"
    percent: list[int] = field(default_factory=lambda: [50])
    used: list[int] = field(default_factory=lambda: [2**30])
    milliwatts: list[int] = field(default_factory=lambda: [300_000])
    millijoules: list[int] = field(default_factory=lambda: [1_000, 61_000])
    refuses: tuple[str, ...] = ()


def next_of(values: list[int]) -> int:
    """The values in turn, then the last for ever."""
    return values.pop(0) if len(values) > 1 else values[0]


class FakeNvml:
    """The part of `pynvml` that the monitor uses; each handle is a card."""

    NVMLError = NVMLError

    def __init__(self, *cards: Card) -> None:
        self.cards = cards
        self.begun = False

    def nvmlInit(self) -> None:
        if not self.cards:
            raise NVMLError("Driver Not Loaded")
        self.begun = True

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        assert self.begun, "Uninitialized"
        if index >= len(self.cards):
            raise NVMLError("Invalid Argument")
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> Card:
        assert self.begun and isinstance(uuid, bytes)  # it becomes a char *
        for card in self.cards:
            if card.uuid == uuid.decode():
                return card
        raise NVMLError("Not Found")

    def nvmlDeviceGetUtilizationRates(self, card: Card) -> Rates:
        return Rates(self._told(card, "percent"))

    def nvmlDeviceGetMemoryInfo(self, card: Card) -> Memory:
        used = self._told(card, "used")
        return Memory(80 * 2**30, 80 * 2**30 - used, used)

    def nvmlDeviceGetPowerUsage(self, card: Card) -> int:
        return self._told(card, "milliwatts")

    def nvmlDeviceGetTotalEnergyConsumption(self, card: Card) -> int:
        return self._told(card, "millijoules")

    def _told(self, card: Card, name: str) -> Any:
        if name in card.refuses:
            raise NVMLError("Not Supported")
        return next_of(getattr(card, name))
