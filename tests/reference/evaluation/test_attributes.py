"""What prompts say of a person, and whether images agree."""

from __future__ import annotations

import numpy as np
import pytest

from reference import captions
from reference.evaluation import attributes
from synfer_rt.vocabulary import label_schemes, prompts


def test_what_a_sentence_says_is_what_it_was_made_of():
    rng = np.random.default_rng(0)
    faces = [prompts.draw(rng.random(prompts.DRAWS)) for _ in range(300)]
    expressions = (None, *label_schemes.scheme("affectnet-8"))
    sentences = [
        prompts.describe(face, expressions[i % 9], rng.random(3).tolist())
        for i, face in enumerate(faces)
    ]
    asked = [
        [names.index(getattr(face, name)) for name, names in captions.BANDS.items()]
        for face in faces
    ]
    assert attributes.described(sentences).tolist() == asked


def test_a_sentence_without_ancestry_asks_for_none():
    assert attributes.described(["a photo of a little girl, dim light"]).tolist() == [[0, 0, -1]]


def test_a_sentence_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="not a sentence of"):
        attributes.described(["a cat"])


def test_agreement_leaves_out_what_was_not_asked_for():
    asked = np.array([[0, 0, -1], [0, 1, 2], [3, 1, 2], [3, 0, 1]])
    read = np.array([[0, 1, 0], [1, 1, 2], [3, 1, 0], [3, 0, 1]])
    found = attributes.agreement(asked, read)
    assert {name: one["agreement"][0] for name, one in found.items()} == {
        "age": 0.75,
        "gender": 0.75,
        "ancestry": pytest.approx(2 / 3),
    }
    assert found["ancestry"]["images"] == 3
    assert found["gender"]["by_age"] == {"child": 0.5, "elderly": 1.0}


def test_agreement_on_a_person_seen_twice_is_no_surer():
    asked = np.random.default_rng(0).integers(0, 2, (60, 3))
    asked[:, 2] -= 1
    read = np.random.default_rng(1).integers(0, 2, (60, 3))
    once = attributes.agreement(asked, read)
    twice = attributes.agreement(np.tile(asked, (2, 1)), np.tile(read, (2, 1)))
    people = np.tile(np.arange(60), 2)
    known = attributes.agreement(np.tile(asked, (2, 1)), np.tile(read, (2, 1)), people)
    for name, one in once.items():
        half = one["agreement"][1]
        assert known[name]["agreement"][1] == pytest.approx(half, rel=0.03)
        assert twice[name]["agreement"][1] < 0.85 * half
