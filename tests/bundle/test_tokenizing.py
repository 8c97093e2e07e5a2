"""Prompts become token ids of one length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synfer_rt.bundle import Bundle, open_bundle
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


def test_a_text_has_the_same_ids_however_often_it_is_read(tiny_bundle: Bundle) -> None:
    texts = ["a photo", "", "a photo", "bright light", "", "a photo"]
    together = tiny_bundle.tokenize(texts)
    for row, text in zip(together, texts, strict=True):
        np.testing.assert_array_equal(row, open_again(tiny_bundle).tokenize([text])[0])
    np.testing.assert_array_equal(tiny_bundle.tokenize(texts), together)
    together[:] = 0  # what was handed out is the caller's
    assert tiny_bundle.tokenize(["a photo"]).any()


def test_each_text_is_read_once_and_not_all_are_remembered(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = open_again(tiny_bundle)._tokenizer
    inside, read = tokenizer._tokenizer, list[str]()

    class Counting:
        def encode_batch(self, texts: list[str]) -> Any:
            read.extend(texts)
            return inside.encode_batch(texts)

    monkeypatch.setattr(tokenizer, "_tokenizer", Counting())
    monkeypatch.setattr("synfer_rt.bundle.tokenizing._MOST_REMEMBERED", 3)
    for texts in (["dim", "light", "dim"], ["light", "a"], ["dim", "a"]):
        tokenizer.ids(texts)
    assert read == ["dim", "light", "a"]
    tokenizer.ids(["photo", "a"])  # one too many: all are forgotten
    tokenizer.ids(["photo"])
    assert read == ["dim", "light", "a", "photo", "photo"]


def open_again(bundle: Bundle) -> Bundle:
    return open_bundle(bundle.path)
