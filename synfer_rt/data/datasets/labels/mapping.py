"""The labels of a dataset in another label scheme, by a mapping from their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from synfer_rt.data.datasets.items import Item
from synfer_rt.vocabulary.label_schemes import Mapped


def mapped_labels(items: Sequence[Item], mapping: Mapped) -> list[Item]:
    """The items with the labels that `mapping` names; a label that is several has none.

    Labels that the mapping does not name stay as they are.
    """
    return [
        item if item.label is None or item.label not in mapping else _mapped(item, mapping)
        for item in items
    ]


def _mapped(item: Item, mapping: Mapped) -> Item:
    parts = mapping[item.label or ""]
    if len(parts) == 1:
        (label,) = parts
        return replace(item, label=label)
    shares = ", ".join(f"{name} {weight:g}" for name, weight in parts.items())
    why = f"its label {item.label} is mapped to several classes ({shares}), of which none is its"
    return replace(item, label=None, problem=why)
