"""Captions say what the annotations say, in words that the tokenizer knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from reference import captions
from reference.faces import appearance
from reference.tokenizer import EOS, MAX_LENGTH, PAD, UNKNOWN, build
from synfer_rt.diffusion import noise
from synfer_rt.engines import default_bundle
from synfer_rt.vocabulary import prompts


def row(**changes: Any) -> dict[str, Any]:
    plain = {
        "age": 0.9,
        "gender": 0.02,
        "ancestry": np.array([0.1, 0.85, 0.05]),
        "hair_style": appearance.HAIR_STYLES.index("long"),
        "hair_color": appearance.HAIR_COLORS.index("white"),
        "beard": 0.0,
        "eye_closure": 0.0,
        "pose": np.array([0.0, 0.0, 0.0]),
        "light": np.array([0.0, 0.3, 1.4, 0.3]),
        "background": 0.5,
    }
    return plain | changes


def test_the_words_of_a_plain_row():
    face = captions.attributes(row())
    assert face == prompts.Attributes("elderly", "female", "East Asian", "long white hair")


def test_renderer_and_prompts_agree_on_hair():
    assert appearance.HAIR_COLORS == prompts.HAIR_COLORS
    assert appearance.HAIR_STYLES == prompts.HAIR_STYLES


@pytest.mark.parametrize(
    ("changes", "clause", "phrase"),
    [
        ({"pose": np.array([0.3, 0, 0])}, "pose", "head turned right"),
        ({"light": np.array([-1.0, 0.3, 1.4, 0.3])}, "light", "light from the left"),
        ({"light": np.array([0.0, 0.3, 0.9, 0.2])}, "light", "dim light"),
        ({"background": 0.1}, "background", "dark background"),
        ({"eye_closure": 1.0}, "eyes", "closed eyes"),
        ({"gender": 1.0, "beard": 0.2}, "beard", "stubble"),
        ({"ancestry": np.array([0.4, 0.3, 0.3])}, "ancestry", ""),
    ],
)
def test_what_a_clause_says(changes: dict[str, Any], clause: str, phrase: str):
    assert getattr(captions.attributes(row(**changes)), clause) == phrase


def test_a_mirrored_face_swaps_left_and_right_and_nothing_else():
    face = captions.attributes(
        row(pose=np.array([0.3, 0, 0]), light=np.array([1.0, 0.3, 1.4, 0.3]), background=0.9)
    )
    other = captions.mirrored(face)
    assert (other.pose, other.light) == ("head turned left", "light from the left")
    assert other.background == "bright background"
    assert captions.mirrored(other) == face


def test_random_action_units_never_name_an_expression():
    words = {w for group in prompts.EXPRESSION_WORDS.values() for w in group}
    rng = np.random.default_rng(0)
    for _ in range(200):
        text = captions.caption(captions.attributes(row()), -1, rng.random(12))
        assert not words & set(text.replace(",", "").split())


def test_an_expression_that_must_be_named_is_named():
    face, rng = captions.attributes(row()), np.random.default_rng(0)
    texts = [captions.caption(face, 1, rng.random(12), always_named=True) for _ in range(200)]
    assert all("face" in text for text in texts)
    assert "face" not in captions.caption(face, -1, rng.random(12), always_named=True)


def test_clauses_are_left_out_as_often_as_asked():
    face = captions.attributes(row())
    rng = np.random.default_rng(0)
    texts = [captions.caption(face, 1, rng.random(12), silence=0.25) for _ in range(2000)]
    assert np.mean(["hair" in text for text in texts]) == pytest.approx(0.75, abs=0.04)
    smiles = [any(w in t for w in prompts.EXPRESSION_WORDS["happy"]) for t in texts]
    assert np.mean(smiles) == pytest.approx(0.75, abs=0.04)


def test_every_sentence_of_the_grammar_is_known_and_fits():
    tokenizer = build()
    draws = prompts.DRAWS
    for i in range(500):
        u = noise.uniform(0, i, draws + 4, "request")
        label = list(prompts.EXPRESSION_WORDS)[int(u[-1] * 8)]
        encoding = tokenizer.encode(
            prompts.describe(prompts.draw(u[:draws]), label, u[draws:-1].tolist())
        )
        assert UNKNOWN not in encoding.tokens
        assert EOS in encoding.tokens  # so nothing was cut off
        assert len(encoding.ids) == MAX_LENGTH


def test_the_shipped_bundle_knows_the_words_of_the_grammar():
    shipped = Tokenizer.from_file(str(default_bundle() / "tokenizer.json"))
    assert shipped.get_vocab() == build().get_vocab()


def test_the_empty_prompt_is_padded_and_words_from_elsewhere_are_unknown():
    tokenizer = build()
    assert tokenizer.encode("").tokens[2:] == [PAD] * (MAX_LENGTH - 2)
    assert tokenizer.encode("zebra").tokens[1] == UNKNOWN


def test_bands_of_many_rows_are_those_of_each():
    rng = np.random.default_rng(0)
    table = {
        "age": rng.random(50).astype(np.float16),
        "gender": rng.random(50).astype(np.float16),
        "ancestry": rng.dirichlet((0.4, 0.4, 0.4), 50).astype(np.float16),
    }
    together = captions.bands(table)
    each = [captions.bands({name: column[i] for name, column in table.items()}) for i in range(50)]
    assert together.tolist() == np.stack(each).tolist()
    assert (together.min(0).tolist(), together.max(0).tolist()) == ([-1, 0, -1], [3, 1, 2])


@pytest.mark.parametrize(
    ("age", "word"), [(0.1, "child"), (0.3, "young"), (0.65, "middle-aged"), (0.8, "elderly")]
)
def test_age_has_a_word_where_it_is_plain(age: float, word: str):
    assert captions.attributes(row(age=age)).age == word


@pytest.mark.parametrize("age", [0.16, 0.5, 0.73])
def test_between_two_bands_age_is_unsaid(age: float):
    face = captions.attributes(row(age=age))
    assert (captions.bands(row(age=age))[0], face.age) == (-1, "")
    assert "of an East Asian woman" in captions.caption(face, -1, np.full(12, 0.4))


def test_an_ancestry_that_does_not_prevail_is_mixed():
    assert captions.bands(row(ancestry=np.array([0.4, 0.3, 0.3])))[2] == -1
    assert captions.bands(row(ancestry=np.array([0.1, 0.2, 0.7])))[2] == 2
