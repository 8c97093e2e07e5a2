"""Planned requests follow their distributions, and depend on the seed and the index alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from synfer_rt.bundle import Bundle, Layouts
from synfer_rt.sampling.au_distributions import AuRanges, AuRows
from synfer_rt.sampling.planned_requests import Distributions, PlannedRequests
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.splits import Split
from synfer_rt.vocabulary.prompt_templates import Template

COUNTS = {"happy": 50, "sad": 30, "fear": 20}
ROWS = AuRows(("AU1", "AU12"), ("0.5 0", "0 0.25", "1 1"))


def planned(bundle: Bundle, seed: int = 3, **fields: Any) -> PlannedRequests:
    counts = fields.get("counts")
    labels = list(counts) if counts else "all"
    return Distributions(**fields).of(make_requests(bundle, labels=labels, seed=seed))


@pytest.fixture
def varied(tiny_bundle: Bundle) -> PlannedRequests:
    return planned(
        tiny_bundle,
        counts=COUNTS,
        attributes={"age": {"child": 1.0, "elderly": 1.0}, "hat": {"": 3.0, "a hat": 1.0}},
        template=Template("a photo of a {age} person with a {expression} face, {hat}"),
        aus={"happy": AuRanges({"AU6": (0.25, 0.75), "AU12": (0.5, 0.5)}), "sad": ROWS},
    )


def test_a_request_depends_on_seed_and_index_alone(varied: PlannedRequests):
    forwards = varied[:100]
    assert [varied[i] for i in reversed(range(100))] == forwards[::-1]
    assert varied.of([7, 90, 3]) == [forwards[7], forwards[90], forwards[3]]


def test_the_labels_have_their_counts(varied: PlannedRequests):
    assert Counter(request.label for request in varied[:100]) == COUNTS
    half = Counter(request.label for request in varied[:50])
    assert all(abs(half[label] - count / 2) < 1 for label, count in COUNTS.items())


def test_a_label_may_be_asked_for(varied: PlannedRequests):
    (request,) = varied.of([0], ["fear"])
    assert request.label == "fear" and request == varied.with_label(0, "fearful")


def test_prompts_follow_the_template_and_its_shares(varied: PlannedRequests):
    made = varied.of(range(4000))
    hats = sum("a hat" in request.prompt for request in made)
    old = sum("an elderly person" in request.prompt for request in made)
    assert abs(hats - 1000) < 140 and abs(old - 2000) < 160  # five standard deviations
    assert all(not request.prompt.endswith(",") for request in made)
    assert len({request.prompt for request in made if request.label == "happy"}) == 2 * 2 * 3


def test_intensities_lie_in_their_ranges_and_rows_are_those_of_the_table(varied: PlannedRequests):
    made = varied.of(range(400))
    happy = [request.aus for request in made if request.label == "happy"]
    assert all(0.25 <= aus["AU6"] <= 0.75 and aus["AU12"] == 0.5 for aus in happy)
    assert len({aus["AU6"] for aus in happy}) == len(happy)
    sad = Counter(tuple(request.aus.items()) for request in made if request.label == "sad")
    rows = ((("AU1", 0.5),), (("AU12", 0.25),), (("AU1", 1.0), ("AU12", 1.0)))
    assert sad.keys() == {*rows} and min(sad.values()) > 15
    prototypes = [request.aus for request in made if request.label == "fear"]
    assert all("AU5" in aus for aus in prototypes)


def test_images_do_not_depend_on_the_counts_of_others(tiny_bundle: Bundle):
    few, many = planned(tiny_bundle, counts={"sad": 5}), planned(tiny_bundle, counts={"sad": 900})
    assert few[:5] == many[:5]


def test_drawn_sentences_name_the_attributes(tiny_bundle: Bundle):
    attributes = {"age": {"child": 1.0}, "gender": {"male": 1.0}, "light": {"dim light": 1.0}}
    made = planned(tiny_bundle, attributes=attributes)[:200]
    assert all("boy" in request.prompt and "dim light" in request.prompt for request in made)
    assert all("beard" not in request.prompt for request in made)
    plain = make_requests(tiny_bundle, seed=3)[:200]
    assert [request.aus for request in made] == [request.aus for request in plain]


def test_a_start_face_is_of_the_words_that_are_given(tiny_bundle: Bundle):
    bank = tiny_bundle.layouts
    assert bank is not None
    gender = bank.gender[0]
    requests = planned(
        tiny_bundle,
        attributes={"gender": {gender: 1.0}},
        template=Template("a {gender} with a {label} face"),
    )
    rows = {request.layout for request in requests[:300]}
    assert rows == {*np.flatnonzero(bank.gender == gender).tolist()}


def test_a_person_is_named_in_the_words_of_drawn_sentences(tiny_bundle: Bundle):
    requests = planned(
        tiny_bundle,
        attributes={
            "age": {"child": 1.0, "elderly": 1.0},
            "gender": {"male": 1.0},
            "ancestry": {"African": 1.0},
        },
        template=Template("a {person}, {label}"),
    )
    said = {request.prompt.partition(",")[0] for request in requests[:200]}
    assert said == {
        *("a young African boy", "a little African boy", "an elderly African man"),
        *("an old African man", "an elderly African gentleman", "an old African gentleman"),
    }
    assert any("boy" in text for text in requests.given_prompts)


def bank(rows: int) -> Layouts:
    words = [
        np.array([one[i % len(one)] for i in range(rows)]) for one in (("child", "young"),) * 3
    ]
    return Layouts(np.zeros((rows, 1, 1, 1), np.float32), *words)


@pytest.mark.parametrize("rows", [3, 10, 101])
def test_splits_share_no_face_and_use_all(rows: int):
    weights = {"train": 0.8, "validation": 0.1, "test": 0.1}
    parts = [Split(name, weights).rows(bank(rows)) for name in weights]
    assert sorted(row for part in parts for row in part) == list(range(rows))
    assert min(map(len, parts)) >= 1
    if rows == 101:
        assert abs(len(parts[0]) - 80) <= 3
        young = sum(bank(rows).age[row] == "young" for row in parts[0])
        assert abs(young - len(parts[0]) / 2) <= 2


def test_a_split_starts_from_its_faces_alone_and_has_its_own_seed(tiny_bundle: Bundle):
    weights = {"train": 0.7, "validation": 0.3}
    used: dict[str, set[int | None]] = {}
    for name in weights:
        split = Split(name, weights)
        requests = planned(tiny_bundle, split.seed(3), split=split)
        used[name] = {request.layout for request in requests[:300]}
    assert not used["train"] & used["validation"]
    assert len({Split(name, weights).seed(seed) for name in weights for seed in (0, 1)}) == 4
    assert all(0 <= Split("train", weights).seed(seed) < 2**63 for seed in range(200))


def test_the_given_prompts_have_every_word(tiny_bundle: Bundle, varied: PlannedRequests):
    said = varied.given_prompts
    assert all(any(word in text for text in said) for word in ("child", "elderly", "a hat"))
    assert planned(tiny_bundle, counts=COUNTS).given_prompts == []


@pytest.mark.parametrize(
    ("text", "prompt"), [("a {label} face", "a happy face"), ("a {{b}}", "a {b}")]
)
def test_a_template_without_attributes_is_a_given_prompt(
    text: str, prompt: str, tiny_bundle: Bundle
):
    requests = planned(tiny_bundle, counts={"happy": 1}, template=Template(text))
    assert requests.given_prompts == [prompt] == [requests[0].prompt]
