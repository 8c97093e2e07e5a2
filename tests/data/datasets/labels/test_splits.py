"""The names that datasets give their parts: train, val and test."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from synfer_rt.commands.cli import main
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.datasets.labels.splits import split_of, split_of_path
from tests.small_datasets import (
    labels_of,
    picture,
    put,
    put_parquet,
    put_tar,
    put_text,
    splits_of,
    why,
)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "FER2013Train Training train train_set train-0000.tar TRAIN_aligned Train"),
        (
            "train",
            "training.csv train_labels.csv fer2013_train trainval raf-train-000000.tar trainingset",
        ),
        ("val", "FER2013Valid PublicTest public_test val_set Validation validation.csv valid"),
        ("val", "dev eval Evaluation dev_set fer2013-dev-000000.tar publictest VAL"),
        ("test", "FER2013Test PrivateTest Test_aligned fer2013-test-00000-of-00001.parquet"),
        ("test", "test_All.csv testing TEST-0.tar raf_db_test TestingSet"),
        (None, "dev_patel latest contest Valentina trained train_test_split Manually_Annotated"),
        (None, "4_setups 0001 happy"),
    ],
)
def test_names_of_splits(split: str | None, names: str):
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train_data/val/happy/1.jpg", "val"),
        ("train/test_subject/1.jpg", "train"),
        ("data_train/sad/1.jpg", "train"),
        ("faces/train.jpg", None),
    ],
)
def test_a_folder_of_no_other_name_is_the_split(path: str, split: str | None):
    assert split_of_path(path) == split


USAGE = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
FOLDERS = {"train": "FER2013Train", "val": "FER2013Valid", "test": "FER2013Test"}
HAPPY = {"train": 3, "val": 1, "test": 1}
"""Happy faces of each split; each has a sad one, too."""


def put_fer(root: Path, kind: str) -> None:
    """Splits as FER2013, FER+ and their mirrors keep them apart."""
    rows = ["image,emotion,Usage"]
    for split, usage in USAGE.items():
        faces = [("happy", i) for i in range(HAPPY[split])] + [("sad", 9)]
        shard: dict[str, bytes] = {}
        for label, i in faces:
            if kind == "Usage":
                put(root, **{f"images__{usage}{i}": 10 * i})
                rows.append(f"{usage}{i}.jpg,{label},{usage}")
            elif kind == "shards":
                shard |= {f"{i}__jpg": picture(10 * i), f"{i}__cls": label.encode()}
            else:
                put(root, **{f"{(FOLDERS, USAGE)[kind == 'kaggle'][split]}__{label}__{i}": i})
        if shard:
            put_tar(root / f"fer2013-{split}-000000.tar", **shard)
    if kind == "Usage":
        put_text(root / "labels.csv", "\n".join(rows))


@pytest.mark.parametrize("kind", ["FER+", "kaggle", "Usage", "shards"])
def test_augment_never_mixes_the_splits(tmp_path: Path, kind: str):
    put_fer(tmp_path / "fer", kind)
    splits = list(splits_of(read_dataset(tmp_path / "fer")).values())
    assert {split: splits.count(split) - 1 for split in HAPPY} == HAPPY
    arguments = ["augment", str(tmp_path / "fer"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "the splits test, train, val; choose" in result.output
    assert not (tmp_path / "out").exists()


def test_shards_of_parquet_say_their_split(tmp_path: Path):
    for split in ("train", "valid", "test"):
        put_parquet(tmp_path / f"fer2013-{split}-00000-of-00001.parquet")
    assert list(splits_of(read_dataset(tmp_path)).values()) == ["test", "train", "val"]


def test_a_table_that_lists_images_of_another_split_is_reported(tmp_path: Path):
    put(tmp_path, train__x=10, test__y=20)
    put_text(tmp_path / "train.csv", "file,label\ntrain/x.jpg,sad\ntest/y.jpg,sad\n")
    dataset = read_dataset(tmp_path)
    assert splits_of(dataset) == {"train/x.jpg": "train", "test/y.jpg": "train"}
    assert why(dataset) == {
        "train.csv: test/y.jpg": "it says the split train, which is used, but its folder says test"
    }


@pytest.mark.parametrize("column", ["Usage", "split", "subset", "set", "phase", "which part"])
def test_a_column_of_words_for_splits(tmp_path: Path, column: str):
    put(tmp_path, x=10, y=20)
    put_text(tmp_path / "l.csv", f"file,label,{column}\nx.jpg,sad,Training\ny.jpg,sad,PublicTest\n")
    assert splits_of(read_dataset(tmp_path)) == {"x.jpg": "train", "y.jpg": "val"}


def test_dev_is_a_split_in_a_column_of_such_words(tmp_path: Path):
    put(tmp_path, x=10, y=20)
    put_text(tmp_path / "l.csv", "file,label,set\nx.jpg,sad,train\ny.jpg,sad,dev\n")
    assert splits_of(read_dataset(tmp_path)) == {"x.jpg": "train", "y.jpg": "val"}
    put_text(tmp_path / "l.csv", "file,label,person\nx.jpg,sad,dev\ny.jpg,sad,eval\n")
    assert splits_of(read_dataset(tmp_path)) == {"x.jpg": None, "y.jpg": None}


def test_a_column_that_says_what_is_for_training_keeps_the_rest_apart(tmp_path: Path):
    put(tmp_path, x=10, y=20)
    put_text(tmp_path / "l.csv", "file,label,is_train\nx.jpg,sad,1\ny.jpg,sad,0\n")
    assert splits_of(read_dataset(tmp_path)) == {"x.jpg": "1", "y.jpg": "0"}


def test_lists_of_splits_may_leave_out_the_suffixes(tmp_path: Path):
    put(tmp_path, sad__x=10, happy__y=20, happy__z=30)
    put_text(tmp_path / "train.txt", "x\nhappy/y\n")
    put_text(tmp_path / "test.txt", "z\n")
    put_text(tmp_path / "test_notes.txt", "Of no use.\n")
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == {
        "sad/x.jpg": "sad",
        "happy/y.jpg": "happy",
        "happy/z.jpg": "happy",
    }
    splits = {"sad/x.jpg": "train", "happy/y.jpg": "train", "happy/z.jpg": "test"}
    assert splits_of(dataset) == splits
