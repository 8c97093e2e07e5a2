"""Which names of folders are classes: words, codes, numbers, and what only looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.datasets.labels.folder_names import FolderNames
from synfer_rt.errors import UserError
from tests.small_datasets import labels_of, put


def read(*names: str, scheme: str | None = None) -> list[str | None]:
    """The classes that the folders of these images say."""
    folders = FolderNames(names, scheme)
    return [folders.label(name).name for name in names]


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("suprise", "surprise"),
        ("Suprised", "surprise"),
        ("0_neutral", "neutral"),
        ("1-angry", "anger"),
        ("3 Happiness", "happy"),
        ("happy_faces", "happy"),
        ("AngryFaces", "anger"),
        ("anger(1)", "anger"),
        ("FEAR_aug", "fear"),
        ("set1_happy_v2", "happy"),
        ("anger_angry", "anger"),
        ("not_happy", None),
        ("Happily Surprised", None),
        ("happy_or_sad", None),
        ("0001", None),
        ("none", None),
    ],
)
def test_a_word_is_read_through_what_is_written_beside_it(folder: str, label: str | None):
    assert read(f"train/{folder}/a.png") == [label]


def test_a_word_goes_before_a_number_wherever_it_stands():
    clips = [f"Action/{word}/{clip}/1.png" for word in ("Angry", "Happy") for clip in (1, 2, 5)]
    assert read(*clips, scheme="affectnet-8") == ["anger"] * 3 + ["happy"] * 3
    assert read("1/Angry/a.png", "2/Angry/a.png", scheme="affectnet-8") == ["anger"] * 2
    assert read("ck/3_anger/S005/1.png", scheme="affectnet-8") == ["anger"]


def test_numbers_are_classes_where_all_beside_them_are():
    assert read("train/1/a.png", "train/8/b.png", scheme="affectnet-8") == ["happy", None]
    tree = [f"Manually_Annotated_Images/{n}/a.png" for n in (1, 3, 7, 103, 1126)]
    assert read(*tree, scheme="affectnet-8") == [None] * 5
    assert read("0001/a.png", "0002/a.png", scheme="affectnet-8") == [None] * 2


def test_numbers_elsewhere_at_the_same_depth_tell_that_these_are_none():
    tree = ["Manually/1/a.png", "Manually/3/a.png", "Automatically/1126/b.png"]
    assert read(*tree, scheme="affectnet-8") == [None] * 3
    clips = ["train/1/0001/a.png", "train/7/0002/b.png"]
    assert read(*clips, scheme="raf-db") == ["surprise", "neutral"]


def test_two_folders_of_numbers_leave_the_class_open():
    names = ["1/3/a.png", "2/5/a.png"]
    assert read(*names, scheme="affectnet-8") == [None, None]
    why = FolderNames(names, "affectnet-8").label(names[0]).problem
    assert why == "its folders 1 and 3 are both class numbers"


def test_codes_and_names_of_people_count_in_company_alone():
    assert read("people/Joy/a.png", "people/Kate/a.png") == [None, None]
    assert read("Joy/a.png", "Neutral/a.png") == ["happy", "neutral"]
    assert read("AN/a.png", "HA/a.png", "NE/a.png") == ["anger", "happy", "neutral"]
    assert read("an/a.png", "co/a.png") == [None, None]


@pytest.mark.parametrize(
    ("folder", "near"),
    [("supprise", "surprise"), ("natural", "neutral"), ("5_disgusst", "disgust")],
)
def test_a_misspelt_class_is_refused_with_the_nearest(tmp_path: Path, folder: str, near: str):
    put(tmp_path, **{"train__happy__a": 10, f"train__{folder}__b": 20})
    with pytest.raises(
        UserError, match=f"'{folder}' is not a known expression; the nearest is {near}"
    ):
        read_dataset(tmp_path)


def test_folders_that_are_all_misspelt_are_refused_too(tmp_path: Path):
    put(tmp_path, a__Hapy__a=10, a__Sadd__b=20)
    with pytest.raises(UserError, match="'Hapy' is not a known expression; the nearest is happy"):
        read_dataset(tmp_path)


def test_two_expressions_in_a_name_are_no_misspelling(tmp_path: Path):
    """RAF-DB's compound expressions are no basic ones, and their names are spelt well."""
    put(tmp_path, **{"Angrily Disgusted__a": 10, "Sadly Fearful__b": 20})
    put(tmp_path / "more", happy__a=10, **{"Happily Surprised__b": 20})
    for folder, words in ((tmp_path, 3), (tmp_path / "more", 1)):
        items = read_dataset(folder).items
        assert {item.label for item in items if item.written != "happy"} <= {None, "happy"}
        assert sum(item.not_understood for item in items) == words


def test_numbers_with_zeros_in_front_are_said_to_be_no_classes(tmp_path: Path):
    put(tmp_path, **{"00__a": 10, "01__b": 20})
    first, _ = read_dataset(tmp_path, label_scheme="fer2013-csv").items
    assert first.label is None and "00 begins with 0" in str(first.problem)


def test_a_word_that_is_not_known_goes_before_a_number(tmp_path: Path):
    put(tmp_path, happy__1__a=10, calm__1126__b=20)
    calm = read_dataset(tmp_path, label_scheme="affectnet-8").items[0]
    assert calm.not_understood and "'calm' is not a known expression" in str(calm.problem)


def test_names_of_people_make_no_class_folders(tmp_path: Path):
    put(tmp_path, angel__a=10, sandy__b=20, kate__c=30, tom__d=40)
    assert read_dataset(tmp_path).format == "images"


def test_what_is_inside_a_class_may_be_called_anything(tmp_path: Path):
    put(tmp_path, happy__angel__a=10, sad__natural__b=20)
    assert list(labels_of(read_dataset(tmp_path)).values()) == ["happy", "sad"]


def test_a_folder_beside_classes_says_what_was_not_understood(tmp_path: Path):
    put(tmp_path, happy__a=10, calm__b=20, sad__c=30)
    calm = read_dataset(tmp_path).items[0]
    assert (calm.label, calm.written, calm.not_understood) == (None, "calm", True)
    assert "'calm' is not a known expression" in str(calm.problem)


def test_a_folder_around_the_classes_is_no_misspelt_class(tmp_path: Path):
    put(tmp_path, fer__happy__a=10, fer__other__b=20)
    assert labels_of(read_dataset(tmp_path)) == {
        "fer/happy/a.jpg": "happy",
        "fer/other/b.jpg": None,
    }
