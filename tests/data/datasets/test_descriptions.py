"""Captions and action units of images, as far as a dataset says them and somebody asks."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.datasets.items import UNDESCRIBED, Description, Item
from synfer_rt.data.datasets.tables.boxes import whole
from tests.small_datasets import picture, put, put_tar, put_text

SMILE = Description("a smiling man", {"AU6": 0.5, "AU12": 0.75})


def as_csv(root: Path) -> None:
    put(root, a=10, b=20)
    rows = ("file,label,caption,AU6,AU12", "a.jpg,happy,a smiling man,0.5,0.75", "b.jpg,sad,,,")
    put_text(root / "labels.csv", "\n".join(rows))


def as_openface(root: Path) -> None:
    put(root, a=10, b=20)
    lines = (
        {"file_name": "a.jpg", "label": "happy", "text": "a smiling man", "AU06_r": 2.5,
         "AU12_r": 3.75, "success": 1},
        {"file_name": "b.jpg", "label": "sad", "AU06_r": 0.0, "AU12_r": 0.0, "success": 0},
    )  # fmt: skip
    put_text(root / "metadata.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def as_parquet(root: Path) -> None:
    aus = [{"AU6": 0.5, "AU12": 0.75}, {"AU6": -1.0, "AU12": -1.0}]
    rows = {"image": [picture(10), picture(20)], "label": ["happy", "sad"], "aus": aus}
    pq.write_table(pa.table(rows | {"prompt": ["a smiling man", None]}), root / "0.parquet")


def as_webdataset(root: Path) -> None:
    said = {"label": "happy", "caption": "a smiling man", "aus": {"AU6": 0.5, "AU12": 0.75}}
    files = {"a__jpg": picture(10), "a__json": json.dumps(said).encode()}
    files |= {"b__jpg": picture(20), "b__json": b'{"label": "sad"}'}
    put_tar(root / "0.tar", **files)


@pytest.mark.parametrize("put_dataset", [as_csv, as_openface, as_parquet, as_webdataset])
def test_every_format_describes_its_images(tmp_path: Path, put_dataset: Callable[[Path], None]):
    put_dataset(tmp_path)
    items = read_dataset(tmp_path, describes=True).items
    assert [(item.label, item.description) for item in items] == [
        ("happy", SMILE), ("sad", Description()),
    ]  # fmt: skip
    assert all(item.description is UNDESCRIBED for item in read_dataset(tmp_path).items)


def test_two_tables_describe_an_image_together(tmp_path: Path):
    put(tmp_path, a=10)
    put_text(tmp_path / "1.csv", "file,label,caption\na.jpg,happy,a smiling man")
    put_text(tmp_path / "2.csv", "file,label,AU6,AU12\na.jpg,happy,0.5,0.75")
    (item,) = read_dataset(tmp_path, describes=True).items
    assert item.description == SMILE


def test_what_is_wrong_with_action_units_is_said(tmp_path: Path):
    put(tmp_path, a=10)
    put_text(tmp_path / "1.csv", "file,label,AU12\na.jpg,happy,2")
    (item,) = read_dataset(tmp_path, describes=True).items
    assert "its column au12 must be from 0 to 1, but says '2'" in str(item.description.aus)


def test_the_file_of_a_face_in_a_box_is_the_whole_image(tmp_path: Path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    put_text(
        tmp_path / "1.csv", "file,label,face_x,face_y,face_width,face_height\na.png,sad,1,2,8,9"
    )
    (item,) = read_dataset(tmp_path).items
    assert whole(item)() == (tmp_path / "a.png").read_bytes()
    with Image.open(io.BytesIO(item.read())) as face:
        assert face.size == (8, 9)
    other = Item("x", None, None, None, None, None, tmp_path, tmp_path.joinpath("a.png").read_bytes)
    assert whole(other)() == whole(item)()
