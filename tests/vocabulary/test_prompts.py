"""Prompts: natural sentences whose every word the tokenizer knows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from synfer_rt.bundle import Bundle
from synfer_rt.diffusion import noise
from synfer_rt.vocabulary import label_schemes, prompts
from synfer_rt.vocabulary.prompts import Attributes

FIRST = (0.0, 0.0, 0.0)


def drawn(count: int) -> list[Attributes]:
    return [
        prompts.draw(noise.uniform(0, index, prompts.DRAWS, "request")) for index in range(count)
    ]


@pytest.fixture(scope="module")
def people() -> list[Attributes]:
    return drawn(3000)


def test_a_face_is_described_in_natural_words() -> None:
    face = Attributes("elderly", "male", "European", "bald head", "beard", light="dim light")
    assert prompts.describe(face, "happy", FIRST) == (
        "a photo of an elderly European man with a happy face, bald head, beard, dim light"
    )


def test_an_expression_may_stay_unsaid() -> None:
    sentence = prompts.describe(Attributes("child", "female"), None, FIRST)
    assert sentence == "a photo of a young girl"


@pytest.mark.parametrize("expression", label_schemes.scheme("affectnet-8"))
def test_every_expression_is_said_in_a_word_of_its_own(expression: str) -> None:
    face = Attributes("young", "female", "African")
    words = prompts.EXPRESSION_WORDS[expression]
    for i, word in enumerate(words):
        sentence = prompts.describe(face, expression, (0.0, 0.0, (i + 0.5) / len(words)))
        assert f" {word} face" in sentence


def test_the_article_follows_the_sound() -> None:
    sentence = prompts.describe(Attributes("young", "female"), "surprise", (0.0, 0.0, 0.5))
    assert sentence.endswith("with an astonished face")


def test_an_edit_asks_for_the_expression_alone() -> None:
    sentences = {prompts.expression_alone(label) for label in label_schemes.scheme("affectnet-8")}
    assert len(sentences) == 8
    assert {"a photo of an angry face", "a photo of a fearful face"} <= sentences


def test_the_largest_uniform_number_still_chooses(people: list[Attributes]) -> None:
    almost_one = 1 - 2.0**-53
    prompts.describe(people[0], "fear", (almost_one,) * 3)
    prompts.draw(np.full(prompts.DRAWS, almost_one))
    prompts.draw(np.zeros(prompts.DRAWS))


def test_age_gender_and_ancestry_are_balanced(people: list[Attributes]) -> None:
    for values, known in (
        ([p.age for p in people], prompts.AGES),
        ([p.gender for p in people], prompts.GENDERS),
        ([p.ancestry for p in people], prompts.ANCESTRIES),
    ):
        counts = Counter(values)
        assert set(counts) == set(known)
        assert max(counts.values()) < 1.2 * min(counts.values())


def test_age_does_not_tell_gender_or_ancestry(people: list[Attributes]) -> None:
    counts = Counter((p.age, p.gender, p.ancestry) for p in people)
    assert len(counts) == len(prompts.AGES) * len(prompts.GENDERS) * len(prompts.ANCESTRIES)
    assert max(counts.values()) < 2 * min(counts.values())


def test_only_grown_men_have_beards(people: list[Attributes]) -> None:
    bearded = [p for p in people if p.beard]
    assert bearded
    assert {p.gender for p in bearded} == {"male"}
    assert "child" not in {p.age for p in bearded}


def test_every_attribute_varies(people: list[Attributes]) -> None:
    assert len({p.hair for p in people}) > 20
    assert {p.pose for p in people} == set(prompts.POSES)
    assert {p.light for p in people} == set(prompts.LIGHTS)
    assert {p.background for p in people} == set(prompts.BACKGROUNDS)


def test_every_word_of_every_sentence_is_in_the_vocabulary(people: list[Attributes]) -> None:
    known = set(prompts.words())
    draws = np.random.default_rng(0)
    for face in people[:1000]:
        for expression in (None, *prompts.EXPRESSION_WORDS):
            sentence = prompts.describe(face, expression, draws.random(3).tolist())
            assert set(sentence.replace(",", " ,").split()) <= known


def test_a_tokenizer_of_these_words_knows_every_sentence(
    tiny_bundle: Bundle, people: list[Attributes]
) -> None:
    sentences = [prompts.describe(face, "disgust", FIRST) for face in people[:200]]
    assert not (tiny_bundle.tokenize(sentences) == 1).any()
