"""Lists of class names beside a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synfer_rt.data.datasets import read_dataset
from synfer_rt.errors import UserError
from tests.small_datasets import labels_of, put, put_text


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

    def test_goes_after_a_format_with_its_own_scheme(self, tmp_path: Path):
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
        with pytest.raises(UserError, match="list different classes"):
            read_dataset(tmp_path)
