"""What a differentiable operator is: a function of tensors, and which of its inputs are numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Known = np.ndarray
"""A value that does not depend on what is in the input, only on its shape."""


class Unsupported(Exception):
    """A setting of an operator that has no derivative here; its text completes a sentence."""


@dataclass(frozen=True)
class Attributes:
    """A node's attributes, the opset that they are of, and the number of its outputs."""

    values: Mapping[str, Any]
    opset: int
    outputs: int

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute `name`, text as str."""
        value = self.values.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


@dataclass(frozen=True)
class Operator:
    """`compute(attributes, *inputs)` gives one tensor or several.

    Inputs are tensors or numbers; those of the positions in `static` are arrays, since they decide
    shapes; an input that is left out is None or missing.
    """

    compute: Callable[..., Any]
    static: frozenset[int] = frozenset()
