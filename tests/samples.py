"""Requests that vary, and how far samples lie apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.samples import Sample


def request(index: int, **changes: Any) -> Request:
    """Every field varies with the index, so that no two samples of a batch are alike."""
    words = ("happy", "sad", "angry", "neutral")
    fields = {
        "index": index,
        "seed": 11,
        "label": "happy",
        "prompt": f"a photo of a young woman with a {words[index % 4]} face",
        "negative_prompt": "" if index % 3 else "dim light",
        "aus": {"AU12": (index % 5) / 5, "AU4": (index % 7) / 7},
        "guidance": 1.0 + index % 4,
        "au_scale": 0.5 + (index % 3) / 2,
        "layout": index % 6,
    }
    return Request(**(fields | changes))


def difference(one: Sample, other: Sample) -> int:
    return int(np.abs(one.image.astype(int) - other.image.astype(int)).max())
