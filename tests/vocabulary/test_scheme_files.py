"""Label schemes of users: names, lists, and files with mappings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.errors import UserError
from synfer_rt.vocabulary.scheme_files import given_scheme

FILE = {
    "name": "mine",
    "classes": ["Neutral", "happiness", "joyful", "bored", "supprise"],
    "mappings": {
        "affectnet-8": {"bored": "neutral", "Supprise": {"surprise": 0.9, "Fearful": 0.1}},
    },
}
YAML = """\
name: mine
classes: [Neutral, happiness, joyful, bored, supprise]
mappings:
  affectnet-8:
    bored: neutral
    Supprise: {surprise: 0.9, Fearful: 0.1}
"""


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_a_file_has_classes_and_mappings(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_text(json.dumps(FILE) if suffix == ".json" else YAML)
    for found in (given_scheme(str(path)), given_scheme(path.name, folder=tmp_path)):
        assert found.name == "mine"
        # Two words for one expression are two classes.
        assert found.classes == ("neutral", "happiness", "joyful", "bored", "supprise")
        mapping = {"bored": {"neutral": 1.0}, "supprise": {"surprise": 0.9, "fear": 0.1}}
        assert found.mapped_to("ferplus") == mapping  # the same classes in another order
        assert found.mapped_to("raf-db") == {}


def test_a_word_for_an_expression_is_one(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text('["Angry", "Happiness", "bored"]')
    assert given_scheme(path).text == "anger,happy,bored"


def test_a_scheme_may_be_a_name_a_list_or_what_a_file_holds() -> None:
    assert given_scheme("raf-db").text == "raf-db"
    assert given_scheme(["happy", "sad"]).classes == ("happy", "sad")
    assert given_scheme("Happiness,sad").text == "Happiness,sad"
    assert given_scheme(FILE).mapped_to("affectnet-8")["bored"] == {"neutral": 1.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"klasses": []}, "has the key 'klasses'"),
        ({"classes": "happy"}, "must list its `classes`"),
        ({"classes": ["happy"]}, "fewer than two classes"),
        ({"classes": ["happy", "a, b"]}, "without commas"),
        ({"classes": ["happy", "bored", "Bored"]}, "contains bored twice"),
        ({"mappings": ["affectnet-8"]}, "must hold `mappings` by label scheme"),
        ({"mappings": {"ekman": {}}}, "Unknown label scheme 'ekman'"),
        ({"mappings": {"raf-db": {"tired": "sad"}}}, "'tired' is not a class of that scheme"),
        ({"mappings": {"raf-db": {"bored": "contempt"}}}, "'contempt' is not a class"),
        ({"mappings": {"raf-db": {"bored": {"sad": 0.5, "fear": 0.4}}}}, "add up to 0.9; they"),
        ({"mappings": {"raf-db": {"bored": {"sad": 1.5, "fear": -0.5}}}}, "must be above 0"),
        ({"mappings": {"raf-db": {"bored": "sad", "Bored": "fear"}}}, "bored is mapped twice"),
        ({"mappings": {"raf-db": {"bored": ["sad", "fear"]}}}, "mapped to a class, or to several"),
        ({"mappings": {"raf-db": {"bored": None}}}, "mapped to a class, or to several"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        given_scheme({**FILE, **change})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "cannot be read"),
        ("a.json", '{"classes": ["sad", "shy"], "classes": ["shy", "sad"]}', "written twice"),
        ("a.yaml", "classes: [sad, shy]\nclasses: [shy, sad]\n", "written twice"),
        ("a.yaml", "classes: [sad", "line 1: expected"),
        ("a.yaml", "sad", "must hold `classes`"),
        ("a.yaml", "classes: [sad, shy]\n? [a, b]\n: c\n", "cannot be read"),
        ("a.yaml", "classes: !!python/name:os.system ['x']", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        given_scheme(tmp_path / name)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name its file"):
        given_scheme(tmp_path / "none.json")


def test_the_mapping_that_names_the_scheme_goes_before_others() -> None:
    both = {"affectnet-8": {"bored": "neutral"}, "ferplus": {"bored": "sad"}}
    found = given_scheme({**FILE, "mappings": both})
    assert found.mapped_to("ferplus") == {"bored": {"sad": 1.0}}
    assert found.mapped_to("affectnet-8") == {"bored": {"neutral": 1.0}}
    with pytest.raises(
        UserError, match="mine has different mappings to affectnet-8 and to ferplus"
    ):
        found.mapped_to("hsemotion-8")
    same = {"affectnet-8": {"bored": "sad"}, "ferplus": {"bored": "sad"}}
    found = given_scheme({**FILE, "mappings": same})
    assert found.mapped_to("hsemotion-8") == {"bored": {"sad": 1.0}}


def test_files_may_map_to_each_other(tmp_path: Path) -> None:
    for name, classes, other in (("a", ["sad", "shy"], "b"), ("b", ["sad", "meek"], "a")):
        mapping = {f"{other}.json": {classes[1]: "meek" if name == "a" else "shy"}}
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"classes": classes, "mappings": mapping})
        )
    found = given_scheme(tmp_path / "a.json")
    assert found.mapped_to("meek,sad") == {"shy": {"meek": 1.0}}
    twice = {"b.json": {"shy": "sad"}, "sad,meek": {"shy": "meek"}}
    with pytest.raises(UserError, match="has two mappings to sad,meek"):
        given_scheme({"classes": ["sad", "shy"], "mappings": twice}, folder=tmp_path)
