"""Published sets whose file names or label files say the expression, and lists of class names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synfer_rt.data.datasets import read_dataset
from synfer_rt.errors import UserError
from tests.small_datasets import labels_of, picture, put, put_text


def put_named(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(50))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("KA.AN1.39.tiff", "KA.HA2.30.tiff", "KM.FE1.23.tiff"), ["anger", "happy", "fear"]),
        (("AF01/AF01AFS.JPG", "BM35/BM35DIFL.JPG"), ["fear", "disgust"]),
        (
            (
                "Rafd090_01_Caucasian_female_contemptuous_left.jpg",
                "Rafd090_02_Moroccan_male_sad_frontal.jpg",
            ),
            ["contempt", "sad"],
        ),
        (("1001_DFA_NEU_XX.jpg", "1091_IEO_ANG_HI_frame3.jpg"), ["neutral", "anger"]),
    ],
    ids=["JAFFE", "KDEF", "RaFD", "CREMA-D"],
)
def test_names_by_the_rule_of_a_published_set(tmp_path: Path, names: tuple, found: list):
    put_named(tmp_path, *names)
    dataset = read_dataset(tmp_path)
    assert dataset.format == "file-names"
    assert list(labels_of(dataset).values()) == found


def test_a_name_that_breaks_the_rule_has_no_label(tmp_path: Path):
    put_named(tmp_path, "AF30ANS.JPG", "AF31NES.JPG", "AF31V.JPG")
    assert list(labels_of(read_dataset(tmp_path)).values()) == ["anger", "neutral", None]


def test_names_of_photographs_are_no_codes(tmp_path: Path):
    put_named(tmp_path, "AN.jpg", "happy_birthday.jpg", "KA.AN.jpg")
    assert read_dataset(tmp_path).format == "images"


def test_class_folders_go_before_names(tmp_path: Path):
    put_named(tmp_path, "sad/KA.AN1.39.tiff")
    assert labels_of(read_dataset(tmp_path)) == {"sad/KA.AN1.39.tiff": "sad"}


def test_ck_plus_labels_the_last_frame_of_a_sequence(tmp_path: Path):
    put(tmp_path, **{f"cohn-kanade-images__S005__001__S005_001_{i:08d}": i for i in (1, 11)})
    put_text(tmp_path / "Emotion/S005/001/S005_001_00000011_emotion.txt", "   3.0000000e+00\n")
    dataset = read_dataset(tmp_path)
    assert dataset.format == "ck-plus"
    assert [item.label for item in dataset.items] == [None, "disgust"]
    assert not dataset.items[0].not_understood


class TestClassLists:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("classes.txt", "Angry\nHappy\nSad\n"),
            ("labels.txt", "0 angry\n1 happy\n2 sad\n"),
            ("class_names.txt", "angry: 0\nhappy: 1\nsad: 2\n"),
            ("class_indices.json", json.dumps({"angry": 0, "happy": 1, "sad": 2})),
            ("id2label.json", json.dumps({"0": "angry", "1": "happy", "2": "sad"})),
            ("classes.json", json.dumps(["angry", "happy", "sad"])),
        ],
    )
    def test_gives_numbers_their_meaning(self, tmp_path: Path, name: str, text: str):
        put(tmp_path, **{"0__a": 1, "2__b": 2})
        put_text(tmp_path / name, text)
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"0/a.jpg": "anger", "2/b.jpg": "sad"}
        assert dataset.skipped == ()

    def test_may_count_from_1(self, tmp_path: Path):
        put(tmp_path, a=1, b=2)
        put_text(tmp_path / "classes.txt", "1,angry\n2,happy\n")
        put_text(tmp_path / "list.csv", "file,label\na.jpg,1\nb.jpg,2\n")
        assert labels_of(read_dataset(tmp_path)) == {"a.jpg": "anger", "b.jpg": "happy"}

    def test_goes_after_what_the_user_says(self, tmp_path: Path):
        put(tmp_path, **{"1__a": 1})
        put_text(tmp_path / "classes.txt", "Angry\nHappy\n")
        found = read_dataset(tmp_path, label_scheme="sad,fear")
        assert labels_of(found) == {"1/a.jpg": "fear"}

    def test_goes_after_a_layout_of_its_own(self, tmp_path: Path):
        put(tmp_path, train_00001=1)
        put_text(tmp_path / "list_patition_label.txt", "train_00001.jpg 4\n")
        put_text(tmp_path / "classes.txt", "Angry\nHappy\n")
        assert labels_of(read_dataset(tmp_path)) == {"train_00001.jpg": "happy"}

    def test_of_something_else_counts_for_nothing(self, tmp_path: Path):
        put(tmp_path, **{"0__a": 1})
        put_text(tmp_path / "classes.txt", "cat\ndog\n")
        assert labels_of(read_dataset(tmp_path)) == {"0/a.jpg": None, "classes.txt": None}

    def test_two_that_differ_are_refused(self, tmp_path: Path):
        put(tmp_path, **{"0__a": 1})
        put_text(tmp_path / "classes.txt", "sad\nhappy\n")
        put_text(tmp_path / "labels.txt", "happy\nsad\n")
        with pytest.raises(UserError, match="classes differ"):
            read_dataset(tmp_path)


def test_who_says_what_numbers_mean_is_told_why_folders_are_none(tmp_path: Path):
    put(tmp_path, **{f"images__{n}__a": 1 for n in (1, 3, 1126)})
    dataset = read_dataset(tmp_path, label_scheme="affectnet-8")
    assert "1126 is no number of affectnet-8" in str(dataset.items[0].problem)
