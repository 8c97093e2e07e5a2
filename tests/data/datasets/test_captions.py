"""Captions in text files beside images, in the layouts that img2dataset writes, and in folders.

img2dataset names a shard by five digits, and an image by nine: five of its shard, four of its place
there. Beside each image are its caption and its JSON, and beside each shard a Parquet file of all
images, those that failed included, and a JSON file of counts.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synfer_rt.data.datasets import Dataset, read_dataset

LABELS = ("happy", "sad", "happy", "anger")
FAILED = 2


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    return file.getvalue()


def rows(labelled: bool) -> list[dict[str, Any]]:
    """What img2dataset knows of each image; one was not found."""
    found: list[dict[str, Any]] = []
    for i, label in enumerate(LABELS):
        failed = i == FAILED
        size = None if failed else 8
        row: dict[str, Any] = {"label": label} if labelled else {}
        row |= {
            "url": f"https://example.org/{i}.jpg",
            "caption": f"a face, number {i}",
            "key": f"{i:09d}",
            "status": "failed_to_download" if failed else "success",
            "error_message": "HTTP Error 404: Not Found" if failed else None,
            **dict.fromkeys(("width", "height", "original_width", "original_height"), size),
            "exif": None if failed else "{}",
            "sha256": None if failed else "0" * 64,
        }
        found.append(row)
    return found


def written(root: Path, kind: str, labelled: bool) -> Path:
    """A folder that img2dataset wrote in the output format `kind`."""
    root.mkdir()
    counts = {"count": 4, "successes": 3, "failed_to_download": 1, "status_dict": {"success": 3}}
    (root / "00000_stats.json").write_text(json.dumps(counts, indent=4))
    table, files = rows(labelled), dict[str, bytes]()
    for row in table:
        if row["status"] == "success":
            files[f"{row['key']}.jpg"] = jpeg()
            files[f"{row['key']}.txt"] = row["caption"].encode()
            files[f"{row['key']}.json"] = json.dumps(row, indent=4).encode()
    if kind == "parquet":
        for row in table:
            row["txt"] = row["caption"] if row["status"] == "success" else None
            row["jpg"] = files.get(f"{row['key']}.jpg")
    elif kind == "files":
        (root / "00000").mkdir()
        for name, content in files.items():
            (root / "00000" / name).write_bytes(content)
    else:
        put_tar(root / "00000.tar", files)
    pq.write_table(pa.Table.from_pylist(table), root / "00000.parquet")
    return root


def put_tar(file: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(file, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def captions(dataset: Dataset) -> dict[str, str | None]:
    return {item.name: item.description.caption for item in dataset.items}


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("kind", "format", "names"),
    [
        ("files", "sidecars", "00000/{:09d}.jpg"),
        ("webdataset", "webdataset", "00000.tar/{:09d}"),
        ("parquet", "parquet", "00000.parquet/0-{}"),
    ],
)
def test_what_img2dataset_writes(
    kind: str, format: str, names: str, labelled: bool, tmp_path: Path
) -> None:
    found = read_dataset(written(tmp_path / "faces", kind, labelled), describes=True)
    assert found.format == format
    there = [i for i in range(4) if i != FAILED or kind == "parquet"]
    assert captions(found) == {names.format(i): f"a face, number {i}" for i in there}
    wanted = [LABELS[i] if labelled else None for i in there]
    assert [item.label for item in found.items] == wanted
    assert not any(entry.name.endswith(".txt") for entry in found.skipped)


@pytest.mark.parametrize("place", ["happy/{}.{}", "{}.{}", "train/happy/{}.{}"])
def test_a_folder_of_images_and_texts(place: str, tmp_path: Path) -> None:
    texts = {"a": "\ufeffa man,\n  laughing \n", "b": "", "c": "0 0.5 0.5 0.25 0.25\n"}
    for name, text in texts.items():
        file = tmp_path / place.format(name, "jpg")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg())
        file.with_suffix(".txt").write_text(text, encoding="utf-8")
    (tmp_path / place.format("d", "jpg")).write_bytes(jpeg())
    found = read_dataset(tmp_path, describes=True)
    assert captions(found) == {
        place.format(name, "jpg"): "a man, laughing" if name == "a" else None for name in "abcd"
    }
    assert [(entry.name, entry.reason) for entry in found.skipped] == [
        (place.format(name, "txt"), "it holds no words, so its image has no caption")
        for name in "bc"
    ]


def test_a_text_goes_before_a_table_and_the_json(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(jpeg())
    (tmp_path / "a.txt").write_text("as written again")
    lines = "file_name,label,caption\na.jpg,happy,as found\nb.jpg,sad,as found\n"
    (tmp_path / "labels.csv").write_text(lines)
    found = read_dataset(tmp_path, describes=True)
    assert captions(found) == {"a.jpg": "as written again", "b.jpg": "as found"}
    record = json.dumps({"label": "happy", "caption": "as found"}).encode()
    files = {"a.jpg": jpeg(), "a.json": record, "a.txt": b"as written again"}
    files |= {"b.jpg": jpeg(), "b.json": record, "b.txt": b""}
    put_tar(tmp_path / "faces.tar", files)
    found = read_dataset(tmp_path / "faces.tar", describes=True)
    assert list(captions(found).values()) == ["as written again", "as found"]
    assert [entry.name for entry in found.skipped] == ["faces.tar/b.txt"]


def test_texts_are_only_read_for_descriptions(tmp_path: Path) -> None:
    root = written(tmp_path / "faces", "webdataset", True)
    found = read_dataset(root)
    assert set(captions(found).values()) == {None}
    assert [entry.name for entry in found.skipped] == ["00000.tar/*.txt"]
