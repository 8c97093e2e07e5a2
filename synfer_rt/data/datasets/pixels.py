"""Images that a table holds as numbers, as fer2013.csv does: a cell of grey values per row."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from synfer_rt.data.datasets.columns import PIXELS, Columns, key
from synfer_rt.data.datasets.items import Found, Item, Label, Skipped
from synfer_rt.data.datasets.separated import Form, cells_of
from synfer_rt.data.datasets.splits import split_of, split_of_path

OWN_NAMES = ("fer2013", "icml_face_data")
"""What the files of FER2013 itself are called (Goodfellow et al. 2013)."""


def images_of_pixels(
    root: Path, file: Path, form: Form, columns: Columns, label_scheme: str | None
) -> Found:
    """An image for each row of a table with a column `pixels`: N * N grey values, 0 to 255.

    Rows are read again, by position, when their images are.
    """
    listing = file.relative_to(root).as_posix()
    if label_scheme is None and file.stem.lower() in OWN_NAMES:
        label_scheme = "fer2013-csv"
    split = split_of(file.name) or split_of_path(listing)
    for number, (offset, row) in enumerate(_rows(file, form)):
        name = f"{listing}/{number:07d}"
        if PIXELS not in row:
            yield Skipped(name, f"the row has {len(row)} of {len(form.names)} columns")
            continue
        label = columns.label(row, label_scheme)
        read = partial(_image, file, form, offset)
        yield Item(name, *label, columns.split_of(row) or split, file, read)


def with_labels_of(images: Sequence[Item], labels: Mapping[str, Label], listing: str) -> list[Item]:
    """The images of FER2013's own file with the labels that `listing` gives them, by FER+'s names.

    There `fer0000012.png` is row 12 of that file. A row that is not named shows no face.
    """
    relabelled: list[Item] = []
    for number, item in enumerate(images):
        label = labels.get(own_name(number), Label(None, f"{listing} does not name it", ""))
        name, problem, written, scheme = label
        relabelled.append(
            replace(item, label=name, problem=problem, written=written, scheme=scheme)
        )
    return relabelled


def own_name(number: int) -> str:
    """What FER+ calls the image of a row of FER2013's own file, numbered from 0."""
    return f"fer{number:07d}.png"


def _rows(file: Path, form: Form) -> Iterator[tuple[int, Mapping[str, str]]]:
    with file.open("rb") as stream:
        seen, offset = 0, 0
        for line in stream:
            begin, offset = offset, offset + len(line)
            if not line.strip():
                continue
            seen += 1
            if seen > form.skipped:
                yield begin, _row(line, form)


def _row(line: bytes, form: Form) -> Mapping[str, str]:
    try:
        cells = cells_of(line.decode(form.encoding, "replace"), form.separator)
    except csv.Error:
        return {}
    return dict(zip(map(key, form.names), cells, strict=False))


def _image(file: Path, form: Form, offset: int) -> bytes:
    """The image of the row at `offset` as a PNG file. Raises OSError where its cell is none."""
    from PIL import Image

    with file.open("rb") as stream:
        stream.seek(offset)
        cell = _row(stream.readline(), form).get(PIXELS, "")
    if not re.fullmatch(r"[\d\s,\[\]]*", cell, re.ASCII) or re.search(r"\d{4}", cell):
        raise OSError("its pixels are no whole numbers of 0 to 255")
    numbers = np.array(re.findall(r"\d+", cell), np.int64)
    side = math.isqrt(len(numbers))
    if not len(numbers) or side * side != len(numbers):
        raise OSError(f"its {len(numbers)} pixels are those of no square")
    if numbers.max() > 255:
        raise OSError("its pixels are no whole numbers of 0 to 255")
    grey = numbers.astype(np.uint8).reshape(side, side)
    content = io.BytesIO()
    Image.fromarray(grey).save(content, "PNG")
    return content.getvalue()
