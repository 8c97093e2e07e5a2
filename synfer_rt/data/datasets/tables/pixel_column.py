"""Images that a table holds as numbers: a cell of grey values for each row, as in fer2013.csv."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from synfer_rt.data.datasets.items import Found, Item, Skipped, name_below
from synfer_rt.data.datasets.labels.label import Label
from synfer_rt.data.datasets.labels.splits import split_of, split_of_path
from synfer_rt.data.datasets.tables.column_names import PIXELS, key
from synfer_rt.data.datasets.tables.columns import Columns
from synfer_rt.data.datasets.tables.delimited import Form, cells_of

FER2013 = ("fer2013", "icml_face_data")
"""The names of FER2013's own files without suffix (Goodfellow et al. 2013)."""


def images_of_pixels(
    root: Path, file: Path, form: Form, columns: Columns, label_scheme: str | None
) -> Found:
    """An image for each row of a table with a column `pixels`: N * N grey values, 0 to 255.

    The row is read again, by its position, when its image is.
    """
    table = name_below(root, file)
    if label_scheme is None and file.stem.lower() in FER2013:
        label_scheme = "fer2013-csv"
    split = split_of(file.name) or split_of_path(table)
    for number, (offset, row) in enumerate(_rows(file, form)):
        name = f"{table}/{number:07d}"
        if PIXELS not in row:
            yield Skipped(name, f"the row has only {len(row)} of {len(form.names)} columns")
            continue
        label = columns.label(row, label_scheme)
        read = partial(_image, file, form, offset)
        own, person = columns.split_of(row) or split, columns.person_of(row)
        yield Item(name, *label, own, file, read, person=person)


def with_labels_of(images: Sequence[Item], labels: Mapping[str, Label], table: str) -> list[Item]:
    """The images of FER2013's own file with the labels that the table of FER+ gives them.

    FER+ calls the image of row 12 `fer0000012.png`. An image that it does not name shows no face.
    """
    missing = Label(None, f"{table} does not name it", "")
    return [
        item.labelled(labels.get(ferplus_name(number), missing))
        for number, item in enumerate(images)
    ]


def ferplus_name(number: int) -> str:
    """The name that FER+ gives the image of a row of FER2013's own file, numbered from 0."""
    return f"fer{number:07d}.png"


def _rows(file: Path, form: Form) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows with the position of each in the file, in bytes."""
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
    """The image of the row at `offset` as a PNG file. Raises OSError if its cell holds none."""
    from PIL import Image

    with file.open("rb") as stream:
        stream.seek(offset)
        cell = _row(stream.readline(), form).get(PIXELS, "")
    if not re.fullmatch(r"[\d\s,\[\]]*", cell, re.ASCII) or re.search(r"\d{4}", cell):
        raise OSError("its pixels are not whole numbers from 0 to 255")
    numbers = np.array(re.findall(r"\d+", cell), np.int64)
    side = math.isqrt(len(numbers))
    if not len(numbers) or side * side != len(numbers):
        raise OSError(f"its {len(numbers)} pixels do not make a square")
    if numbers.max() > 255:
        raise OSError("its pixels are not whole numbers from 0 to 255")
    grey = numbers.astype(np.uint8).reshape(side, side)
    content = io.BytesIO()
    Image.fromarray(grey).save(content, "PNG")
    return content.getvalue()
