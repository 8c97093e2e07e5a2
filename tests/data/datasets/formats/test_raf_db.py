"""RAF-DB: its list of labels, with aligned images or face boxes."""

from __future__ import annotations

from pathlib import Path

from synfer_rt.data.datasets import read_dataset
from tests.small_datasets import labels_of, put, put_text, shades, why


def test_raf_db_counts_from_one_and_prefers_the_aligned_image(tmp_path: Path):
    put(tmp_path, Image__aligned__train_00001_aligned=10, Image__original__train_00001=20)
    put(tmp_path, Image__aligned__test_0001_aligned=30)
    (tmp_path / "EmoLabel").mkdir()
    listed = "train_00001.jpg 5\ntest_0001.jpg 7\ntrain_00002.jpg 1\n"
    (tmp_path / "EmoLabel" / "list_patition_label.txt").write_text(listed)
    dataset = read_dataset(tmp_path)
    assert dataset.format == "raf-db"
    assert [(i.label, i.split) for i in dataset.items] == [("sad", "train"), ("neutral", "test")]
    assert shades(dataset) == [10, 30]
    assert list(why(dataset)) == ["EmoLabel/list_patition_label.txt: train_00002.jpg"]


def test_raf_db_counts_an_image_once_whatever_its_lists_are_called(tmp_path: Path):
    put(tmp_path, train_1=10, train_2=20)
    put_text(tmp_path / "list_patition_label.txt", "\ufefftrain_1.jpg 5\ntrain_2.jpg 4\n")
    put_text(tmp_path / "List_Partition_Label.txt", "train_1.jpg 5\ntrain_2.jpg 7\n")
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == {"train_1.jpg": "sad", "train_2.jpg": "neutral"}
    reason = "it says happy, but an earlier row says neutral, which is used"
    assert why(dataset) == {"list_patition_label.txt: train_2.jpg": reason}
