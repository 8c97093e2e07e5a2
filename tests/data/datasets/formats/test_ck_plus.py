"""CK+: sequences of frames with a text file for the label."""

from __future__ import annotations

from pathlib import Path

from synfer_rt.data.datasets import read_dataset
from tests.small_datasets import put, put_text


def test_ck_plus_labels_the_last_frame_of_a_sequence(tmp_path: Path):
    put(tmp_path, **{f"cohn-kanade-images__S005__001__S005_001_{i:08d}": i for i in (1, 11)})
    put_text(tmp_path / "Emotion/S005/001/S005_001_00000011_emotion.txt", "   3.0000000e+00\n")
    dataset = read_dataset(tmp_path)
    assert dataset.format == "ck-plus"
    assert [item.label for item in dataset.items] == [None, "disgust"]
    assert [item.person for item in dataset.items] == ["S005", "S005"]
    assert not dataset.items[0].not_understood
