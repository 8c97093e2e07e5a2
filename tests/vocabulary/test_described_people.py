"""What prompts say of a person."""

from __future__ import annotations

import numpy as np

from synfer_rt.vocabulary import prompts
from synfer_rt.vocabulary.described_people import OF_A_PERSON, described_person


def test_what_a_sentence_says_is_what_it_was_made_of() -> None:
    rng = np.random.default_rng(0)
    expressions = (None, *prompts.EXPRESSION_WORDS)
    for i in range(200):
        face = prompts.draw(rng.random(prompts.DRAWS))
        sentence = prompts.describe(face, expressions[i % 9], rng.random(3).tolist())
        assert described_person(sentence) == {name: getattr(face, name) for name in OF_A_PERSON}


def test_what_a_sentence_leaves_open_is_empty() -> None:
    found = described_person("a photo of a little girl, dim light")
    assert found == {"age": "child", "gender": "female", "ancestry": ""}


def test_other_sentences_say_nothing() -> None:
    assert described_person("a cat") is None
    assert described_person("a photo of a happy face") is None
