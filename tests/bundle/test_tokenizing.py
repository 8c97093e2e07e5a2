"""Prompts become token ids of one length."""

from __future__ import annotations

import numpy as np

from synfer_rt.bundle import Bundle
from tests import tiny_bundle as tiny


def test_token_ids_are_padded_and_framed(tiny_bundle: Bundle) -> None:
    ids = tiny_bundle.tokenize(["a photo of a young woman, short hair", ""])
    assert ids.shape == (2, tiny.TOKENS)
    assert ids.dtype == np.int64
    assert ids[1].tolist() == [2, 3] + [0] * (tiny.TOKENS - 2)
    assert ids[0, 0] == 2
    assert 1 not in ids[0]


def test_a_long_prompt_is_cut(tiny_bundle: Bundle) -> None:
    ids = tiny_bundle.tokenize(["a photo of " * 100])
    assert ids.shape == (1, tiny.TOKENS)
    assert ids[0, -1] == 3
