"""Which format a dataset has, if it could be several."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.formats.registry import recognised
from synfer_rt.data.images import find_images
from synfer_rt.errors import UserError
from tests.small_datasets import picture, put, put_parquet, put_tar, put_text

SIGNS = {
    "raf-db": "list_patition_label.txt",
    "metadata": "metadata.csv",
    "webdataset": "0.tar",
    "parquet": "0.parquet",
    "affectnet": "annotations/0_exp.npy",
    "table": "labels.csv",
    "ck-plus": "images/0_emotion.txt",
    "sidecars": "images/0.json",
    "folders": "happy/0.jpg",
}
"""A file that each format is recognised by; metadata and a table are one format."""


def npy(value: str) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(value))
    return file.getvalue()


CONTENT = {
    ".txt": b"3",
    ".csv": b"file_name,label\n0.jpg,sad\n",
    ".npy": npy("4"),
    ".json": b'{"label": "sad"}',
    ".jpg": picture(1),
}


def put_signs(root: Path, *names: str) -> None:
    for name in names:
        file = root / SIGNS[name]
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".tar":
            put_tar(file, **{"0__jpg": picture(1)})
            put_tar(file.with_stem("1"), **{"1__jpg": picture(1)})  # as many as there are images
        elif file.suffix == ".parquet":
            put_parquet(file)
        else:
            file.write_bytes(CONTENT[file.suffix])


@pytest.mark.parametrize("first", range(len(SIGNS)), ids=list(SIGNS))
def test_of_several_signs_the_surest_counts(tmp_path: Path, first: int):
    put(tmp_path, images__0=1)
    names = list(SIGNS)
    put_signs(tmp_path, *names[first:])
    expected = "table" if names[first] == "metadata" else names[first]
    assert recognised(Contents(tmp_path, find_images(tmp_path))).name == expected


def test_more_images_than_tars_are_the_dataset_if_a_table_tells_of_them(tmp_path: Path):
    put(tmp_path, images__0=1, images__1=2, images__2=3)
    put_signs(tmp_path, "webdataset", "table")
    assert read_dataset(tmp_path).format == "table"


def test_files_without_any_sign_are_images(tmp_path: Path):
    put(tmp_path, holiday__0=1)
    assert read_dataset(tmp_path).format == "images"


def test_a_label_scheme_means_that_labels_are_due(tmp_path: Path):
    put(tmp_path, holiday__0=1)
    dataset = read_dataset(tmp_path, label_scheme="affectnet-8")
    assert dataset.format == "folders"
    assert [item.problem for item in dataset.items] == ["it is not in a class folder"]


def test_an_unknown_format_is_refused_with_those_there_are(tmp_path: Path):
    put_text(tmp_path / "a.csv", "file,label\n")
    with pytest.raises(UserError, match=r"no dataset format 'csv'; write one of auto, .*table"):
        read_dataset(tmp_path, "csv")
