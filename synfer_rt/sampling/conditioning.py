"""The distinct rows of a piece's conditioning, which are computed once each.

A row is one guidance branch of one image. All images of a run with one negative prompt have the
same unconditional row, and prompts may repeat.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]


def distinct(inputs: Arrays) -> tuple[Arrays, np.ndarray]:
    """The conditioner's inputs for the distinct rows of `inputs`, and where each row is then.

    `inputs` are those of `Prepared`, of B images; the rows are packed in pairs, as if they were
    branches. Their places are int [B, 2]. There are 1, B // 2 + 1 or B pairs, since a runtime may
    compile the conditioner for each number.
    """
    tokens, scales = inputs["tokens"], inputs.get("au_scale")
    count = len(tokens)
    rows = {name: array.reshape(2 * count, -1) for name, array in inputs.items() if array.ndim > 2}
    places: dict[bytes, int] = {}
    first: list[int] = []
    where = np.empty(2 * count, np.intp)
    for row in range(2 * count):
        key = b"".join(array[row].tobytes() for array in rows.values())
        if key not in places:
            places[key] = len(first)
            first.append(row)
        where[row] = places[key]
    pairs = next(n for n in (1, count // 2 + 1, count) if 2 * n >= len(first))
    # A scale belongs to an image, so the rows of a pair have the same.
    if pairs >= count or (scales is not None and np.any(scales != scales[0])):
        return inputs, np.arange(2 * count).reshape(count, 2)
    chosen = np.array(first + first[-1:] * (2 * pairs - len(first)))
    packed = {
        name: inputs[name].reshape(2 * count, -1)[chosen].reshape(pairs, *inputs[name].shape[1:])
        for name in rows
    }
    if scales is not None:
        packed["au_scale"] = scales[:pairs]
    return packed, where.reshape(count, 2)


def restored(outputs: Arrays, places: np.ndarray) -> dict[str, np.ndarray]:
    """The conditioning [B, 2, ...] from the conditioner's outputs for distinct rows."""
    return {name: values.reshape(-1, *values.shape[2:])[places] for name, values in outputs.items()}
