"""Prompts with placeholders."""

from __future__ import annotations

import pytest

from synfer_rt.vocabulary import prompts
from synfer_rt.vocabulary.prompt_templates import KNOWN, Template


@pytest.mark.parametrize(
    ("text", "words", "prompt"),
    [
        ("a {age} {sex}", {"age": "young", "sex": "man"}, "a young man"),
        ("a {age} {sex}", {"age": "elderly", "sex": "man"}, "an elderly man"),
        ("An {age} face", {"age": "young"}, "A young face"),
        ("a photo of a {age} face", {"age": ""}, "a photo of a face"),
        ("a face, {hat}, {light}", {"hat": "", "light": "dim light"}, "a face, dim light"),
        ("a face, {hat}, {light}", {"hat": "a hat", "light": ""}, "a face, a hat"),
        ("{light}, a {age} face", {"light": "", "age": "old"}, "an old face"),
        ("a {age} {mood} face", {"age": "", "mood": "angry"}, "an angry face"),
        ("an {age}, {mood} face", {"age": "", "mood": "calm"}, "a, calm face"),
        ("a {age} ugly face of a {sex}", {"age": "", "sex": "man"}, "an ugly face of a man"),
        ("a {x}", {"x": ""}, "a"),
        ("{x}", {"x": ""}, ""),
        ("pizza {x}", {"x": "oven"}, "pizza oven"),
        ("{{x}} {x}", {"x": "y"}, "{x} y"),
    ],
)
def test_a_template_becomes_a_clean_sentence(text: str, words: dict[str, str], prompt: str):
    assert Template(text).fill(words) == prompt


@pytest.mark.parametrize(
    "text", ["a {", "a }", "{}", "{a b}", "{age!r}", "{age:3}", "{0}", "{a.b}"]
)
def test_braces_that_hold_no_name_are_refused(text: str):
    with pytest.raises(ValueError):
        _ = Template(text).names


def test_the_known_attributes_are_fields_of_drawn_sentences():
    assert KNOWN.keys() <= prompts.Attributes.__annotations__.keys()
