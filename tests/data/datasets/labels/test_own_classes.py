"""Datasets whose classes are others than the eight expressions."""

from __future__ import annotations

from pathlib import Path

import pytest

from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.datasets.labels.label import label_of
from tests.small_datasets import labels_of, put, put_text

MAPPED = {
    "classes": ["happy", "bored", "confused"],
    "mappings": {
        "affectnet-8": {"bored": "neutral", "confused": {"surprise": 0.5, "fear": 0.5}},
    },
}


def test_the_compound_list_of_raf_db_is_read_with_its_scheme(tmp_path: Path) -> None:
    root = tmp_path / "compound"
    put(root, Image__aligned__train_0001_aligned=1, Image__aligned__train_0002_aligned=2)
    put_text(root / "EmoLabel" / "list_patition_label.txt", "train_0001.jpg 1\ntrain_0002.jpg 11\n")
    found = read_dataset(root, label_scheme="raf-db-compound")
    assert list(labels_of(found).values()) == ["happily surprised", "disgustedly surprised"]
    (unread, _) = read_dataset(root).items
    assert "raf-db-compound" in str(unread.problem)


def test_folders_are_classes_of_the_scheme(tmp_path: Path) -> None:
    put(tmp_path, **{"01_Happily_Surprised__a": 1, "sadly angry__b": 2})
    found = labels_of(read_dataset(tmp_path, label_scheme="raf-db-compound"))
    assert set(found.values()) == {"happily surprised", "sadly angry"}
    put(tmp_path / "own", bored__a=1, happy__b=2, contentment__c=3)
    found = labels_of(read_dataset(tmp_path / "own", label_scheme="bored,happy,contentment"))
    assert set(found.values()) == {"bored", "happy", "contentment"}


@pytest.mark.parametrize(
    ("value", "scheme", "label"),
    [
        ("Bored", "happy,bored", "bored"),
        ("1", "happy,bored", "bored"),
        ("joyful", 'happy,"joyful"', "joyful"),
        ("joyful", "happy,bored", "happy"),
        ("11", "raf-db-compound", "disgustedly surprised"),
        ("Astonishment/Surprise", "emonet-face", "astonishment surprise"),
    ],
)
def test_labels_are_read_by_their_scheme(value: str, scheme: str, label: str) -> None:
    assert label_of(value, scheme).name == label


def test_without_the_scheme_they_are_not_understood() -> None:
    assert label_of("bored", None).name is None
    assert label_of("happily surprised", "raf-db").name is None


def test_a_mapping_turns_labels_into_those_that_are_wanted(tmp_path: Path) -> None:
    put(tmp_path, happy__a=1, bored__b=2, confused__c=3)
    found = read_dataset(tmp_path, label_scheme=MAPPED, target="affectnet-8")
    assert labels_of(found) == {"happy/a.jpg": "happy", "bored/b.jpg": "neutral"} | {
        "confused/c.jpg": None
    }
    confused = next(item for item in found.items if item.label is None)
    assert "mapped to several classes (surprise 0.5, fear 0.5)" in str(confused.problem)
    assert confused.not_understood
    kept = read_dataset(tmp_path, label_scheme=MAPPED, target="raf-db")
    assert labels_of(kept)["bored/b.jpg"] == "bored"
