"""Datasets of a few images, each a shade of grey that tells which one was read."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synfer_rt.data.datasets import Dataset
from synfer_rt.data.datasets.items import load


def picture(shade: int, format: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 12), (shade, shade, shade)).save(file, format)
    return file.getvalue()


def put(root: Path, **files: int) -> None:
    """Images by path (`__` for `/`), each with its own shade of grey."""
    for name, shade in files.items():
        path = root / f"{name.replace('__', '/')}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(shade))


def labels_of(dataset: Dataset) -> dict[str, str | None]:
    return {item.name: item.label for item in dataset.items}


def shades(dataset: Dataset) -> list[int]:
    """The grey of each image, as its bytes decode."""
    found = [load(item, (4, 4)) for item in dataset.items]
    return [round(float(np.asarray(image).mean() * 255)) for image in found]


def why(dataset: Dataset) -> dict[str, str]:
    return {entry.name: entry.reason for entry in dataset.skipped}


def splits_of(dataset: Dataset) -> dict[str, str | None]:
    return {item.name: item.split for item in dataset.items}


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def lock(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """It cannot be listed; permissions alone would not keep out root, as whom containers run."""
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def put_tar(path: Path, **files: bytes) -> None:
    """Members by name, with `__` for the dot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def put_parquet(path: Path, label: object = "sad", **metadata: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": [picture(10)], "label": pa.array([label])})
    pq.write_table(table.replace_schema_metadata(metadata), path)
