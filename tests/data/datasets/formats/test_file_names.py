"""Datasets that write the expression into file names: JAFFE, KDEF, RaFD, CREMA-D."""

from __future__ import annotations

from pathlib import Path

import pytest

from synfer_rt.data.datasets import read_dataset
from tests.small_datasets import labels_of, picture


def put_named(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(50))


@pytest.mark.parametrize(
    ("names", "found", "persons"),
    [
        (
            ("KA.AN1.39.tiff", "KA.HA2.30.tiff", "KM.FE1.23.tiff"),
            ["anger", "happy", "fear"],
            ["KA", "KA", "KM"],
        ),
        # A and B are sessions of the same persons.
        (
            ("AF01/AF01AFS.JPG", "BF01/BF01DIFL.JPG", "BM01/BM01ANS.JPG"),
            ["fear", "disgust", "anger"],
            ["F01", "F01", "M01"],
        ),
        (
            (
                "Rafd090_01_Caucasian_female_contemptuous_left.jpg",
                "Rafd090_02_Moroccan_male_sad_frontal.jpg",
            ),
            ["contempt", "sad"],
            ["01", "02"],
        ),
        (
            ("1001_DFA_NEU_XX.jpg", "1091_IEO_ANG_HI_frame3.jpg"),
            ["neutral", "anger"],
            ["1001", "1091"],
        ),
    ],
    ids=["JAFFE", "KDEF", "RaFD", "CREMA-D"],
)
def test_names_by_the_rule_of_a_published_set(
    tmp_path: Path, names: tuple, found: list, persons: list
):
    put_named(tmp_path, *names)
    dataset = read_dataset(tmp_path)
    assert dataset.format == "file-names"
    assert list(labels_of(dataset).values()) == found
    assert [item.person for item in dataset.items] == persons


def test_a_name_that_breaks_the_rule_has_no_label(tmp_path: Path):
    put_named(tmp_path, "AF30ANS.JPG", "AF31NES.JPG", "AF31V.JPG")
    assert list(labels_of(read_dataset(tmp_path)).values()) == ["anger", "neutral", None]


def test_names_of_photographs_are_no_codes(tmp_path: Path):
    put_named(tmp_path, "AN.jpg", "happy_birthday.jpg", "KA.AN.jpg")
    assert read_dataset(tmp_path).format == "images"


def test_class_folders_go_before_names(tmp_path: Path):
    put_named(tmp_path, "sad/KA.AN1.39.tiff")
    assert labels_of(read_dataset(tmp_path)) == {"sad/KA.AN1.39.tiff": "sad"}
