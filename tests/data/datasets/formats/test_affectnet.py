"""AffectNet: files of labels beside the images, and its CSV files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from synfer_rt.data.datasets import read_dataset
from tests.small_datasets import put


def test_affectnet_csv(tmp_path: Path):
    put(tmp_path, Manually_Annotated_Images__12__a=10, Manually_Annotated_Images__12__b=20)
    with (tmp_path / "training.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["subDirectory_filePath", "expression", "valence"])
        writer.writerows([["12/a.jpg", 1, 0.5], ["12/b.jpg", 9, 0]])
    dataset = read_dataset(tmp_path)
    assert dataset.format == "affectnet"
    assert [item.label for item in dataset.items] == ["happy", None]
    assert "9 is not a class of affectnet-8" in str(dataset.items[1].problem)
    assert {item.split for item in dataset.items} == {"train"}


def test_affectnet_annotations(tmp_path: Path):
    put(tmp_path, train_set__images__0=10, train_set__images__1=20, val_set__images__0=30)
    for split, number, label in (("train", 0, "7"), ("val", 0, "2")):
        folder = tmp_path / f"{split}_set" / "annotations"
        folder.mkdir()
        np.save(folder / f"{number}_exp.npy", np.array(label))
    dataset = read_dataset(tmp_path)
    assert [(i.label, i.split) for i in dataset.items] == [
        ("contempt", "train"),
        (None, "train"),
        ("sad", "val"),
    ]


@pytest.mark.parametrize("damage", [b"PK\x03\x04 no zip", b"PK\x05\x06" + bytes(18), b"\x93NUMPY"])
def test_a_damaged_affectnet_annotation_is_the_images_problem(tmp_path: Path, damage: bytes):
    put(tmp_path, images__0=10, images__1=20)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "0_exp.npy").write_bytes(damage)
    np.save(tmp_path / "annotations" / "1_exp.npy", np.array("7"))
    bad, good = read_dataset(tmp_path).items
    assert "0_exp.npy cannot be read" in str(bad.problem) and good.label == "contempt"
