"""The networks that measure samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from reference import classifiers


@dataclass(frozen=True)
class Readers:
    """The networks that measure; `fer` is the file of the one trained on photographs."""

    judge: torch.nn.Module
    aus: torch.nn.Module
    attributes: torch.nn.Module
    fer: Path | None

    @classmethod
    def load(cls, directory: Path, fer: Path | None) -> Self:
        """The networks in `directory`."""
        names = ("judge", "au-reader", "attribute-reader")
        judge, aus, attribute_reader = (classifiers.load(directory, name) for name in names)
        return cls(judge, aus, attribute_reader, fer)
