"""Attributes are read back from the sentences that were made of them."""

from __future__ import annotations

import numpy as np
import pytest

from synfer_rt.report.prompt_attributes import WORDS, attributes_of
from synfer_rt.vocabulary import prompts


def test_every_drawn_sentence_gives_its_attributes_back():
    draws = np.random.default_rng(0).random((3000, prompts.DRAWS + 3))
    labels = list(prompts.EXPRESSION_WORDS)
    for i, uniforms in enumerate(draws):
        attributes = prompts.draw(uniforms[: prompts.DRAWS])
        sentence = prompts.describe(attributes, labels[i % 8], uniforms[prompts.DRAWS :].tolist())
        found = attributes_of(sentence)
        known = {name: getattr(attributes, name) for name in found if "hair" not in name}
        assert {name: found[name] for name in known} == known, sentence
        style, color = found["hair"], found["hair colour"]
        assert prompts.hair_phrase(style, color) == attributes.hair, sentence


@pytest.mark.parametrize(
    ("prompt", "age", "gender"),
    [
        ("a 30 years old woman", "", "female"),
        ("A PHOTO OF AN OLD MAN", "elderly", "male"),
        ("a man and a woman", "", ""),
        ("a young girl", "child", "female"),
        ("a golden statue of a womanly figure", "", ""),
        ("", "", ""),
    ],
)
def test_other_sentences_say_what_they_name_once(prompt: str, age: str, gender: str):
    found = attributes_of(prompt)
    assert (found["age"], found["gender"]) == (age, gender)


def test_a_template_names_genders_and_ages_by_their_words():
    found = attributes_of("portrait, female, middle-aged, East Asian")
    assert (found["gender"], found["age"], found["ancestry"]) == (
        "female",
        "middle-aged",
        "East Asian",
    )
    assert found.keys() == WORDS.keys()
