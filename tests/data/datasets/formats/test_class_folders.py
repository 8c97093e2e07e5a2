"""Class folders, links and splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.datasets.items import load
from synfer_rt.errors import UserError
from tests.small_datasets import labels_of, lock, put, splits_of, why


class TestFolders:
    def test_the_nearest_class_folder_is_the_label(self, tmp_path: Path):
        put(tmp_path, happiness__a=10, Angry__deep__b=20)
        (tmp_path / "happiness" / "Thumbs.db").write_bytes(b"")
        dataset = read_dataset(tmp_path)
        assert dataset.format == "folders"
        assert labels_of(dataset) == {
            "Angry/deep/b.jpg": "anger",
            "happiness/Thumbs.db": "happy",
            "happiness/a.jpg": "happy",
        }

    def test_what_is_in_no_class_folder_is_not_lost(self, tmp_path: Path):
        put(tmp_path, happy__a=10, bored__b=20)
        (tmp_path / "LICENSE").write_text("free")
        dataset = read_dataset(tmp_path)
        assert dataset.items[0].name == "bored/b.jpg" and dataset.items[0].label is None
        assert "not in a class folder" in str(dataset.items[0].problem)
        assert list(why(dataset)) == ["LICENSE"]

    def test_an_image_beside_class_folders_has_no_label(self, tmp_path: Path):
        put(tmp_path, happy__a=10, sad__b=20, stray=30)
        (stray,) = (item for item in read_dataset(tmp_path).items if item.name == "stray.jpg")
        assert stray.problem == "it is not in a class folder"
        assert (stray.label, stray.written, stray.not_understood) == (None, None, False)

    def test_splits_are_told_apart(self, tmp_path: Path):
        put(tmp_path, train__happy__a=10, test__happy__b=20)
        assert {item.split for item in read_dataset(tmp_path).items} == {"train", "test"}
        assert list(labels_of(read_dataset(tmp_path, split="test"))) == ["test/happy/b.jpg"]
        with pytest.raises(UserError, match="it has test, train"):
            read_dataset(tmp_path, split="val")

    def test_numbers_need_a_scheme(self, tmp_path: Path):
        put(tmp_path, **{"4__a": 10})
        assert read_dataset(tmp_path).format == "images"
        assert labels_of(read_dataset(tmp_path, label_scheme="raf-db")) == {"4/a.jpg": "happy"}
        assert labels_of(read_dataset(tmp_path, label_scheme="affectnet-8")) == {"4/a.jpg": "fear"}

    def test_classes_that_are_links_count_and_dead_links_are_listed(self, tmp_path: Path):
        put(tmp_path, elsewhere__a=10, C__sad__b=20)
        (tmp_path / "C" / "happy").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "C" / "sad" / "dead.jpg").symlink_to(tmp_path / "gone.jpg")
        dataset = read_dataset(tmp_path / "C")
        assert labels_of(dataset) == {
            "happy/a.jpg": "happy",
            "sad/b.jpg": "sad",
            "sad/dead.jpg": "sad",
        }
        assert "No such file" in str(load(dataset.items[2], (4, 4)))

    @pytest.mark.parametrize("name", ["dev", "eval", "Evaluation"])
    def test_other_names_of_the_validation_split_are_whole_names(self, tmp_path: Path, name: str):
        put(tmp_path, **{f"{name}__happy__a": 10, f"{name}_patel__happy__a": 20})
        assert list(splits_of(read_dataset(tmp_path)).values()) == ["val", None]

    @pytest.mark.parametrize("name", ["lost+found", "happy"])
    def test_a_folder_that_cannot_be_listed_is_skipped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ):
        put(tmp_path, **{"sad__x": 10, f"{name}__y": 20})
        lock(monkeypatch, tmp_path / name)
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"sad/x.jpg": "sad"}
        assert "Permission denied" in why(dataset)[name]

    def test_a_link_to_a_folder_that_counts_already_is_skipped(self, tmp_path: Path):
        put(tmp_path, sad__x=10)
        (tmp_path / "sad" / "again").symlink_to(tmp_path / "sad")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"sad/x.jpg": "sad"}
        assert "another name" in why(dataset)["sad/again"]


def test_who_says_what_numbers_mean_is_told_why_folders_are_none(tmp_path: Path):
    put(tmp_path, **{f"images__{n}__a": 1 for n in (1, 3, 1126)})
    dataset = read_dataset(tmp_path, label_scheme="affectnet-8")
    assert "1126 is not a number of affectnet-8" in str(dataset.items[0].problem)
