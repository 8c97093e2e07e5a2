"""Records as columns: a typed array for each field, from which each record is rebuilt exactly."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np

Path = tuple[str, ...]
"""Where a value is in a record: a field, or a field and a name in it, such as aus and AU12."""

ABSENT = ""
"""The JSON text of a value that a record does not have."""
_LARGEST = 1 << 53
"""JavaScript's numbers hold whole numbers up to here."""
_DECIMALS = (4, 6, 8)
"""Numbers with so few decimals are written as whole numbers, which compress well."""
_WHOLE = ("<u1", "<u2", "<i2", "<i4")


class Column:
    """The values of one field, in the order of the images.

    Numbers are kept in an array, everything else as codes of JSON texts.
    """

    def __init__(self) -> None:
        self.numbers: array[float] | None = array("d")
        self.codes = array("I")
        self.texts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.codes if self.numbers is None else self.numbers)

    def add(self, value: Any) -> None:
        """Add the value of the next image."""
        if self.numbers is not None:
            whole = isinstance(value, int) and not isinstance(value, bool)
            if isinstance(value, float) or (whole and -_LARGEST <= value <= _LARGEST):
                self.numbers.append(value)
                return
            self._become_texts(self.numbers)
        self._add_text(_ENCODE(value))

    def fill(self, count: int) -> None:
        """Note that the images up to number `count` do not have the field."""
        if len(self) < count and self.numbers is not None:
            self._become_texts(self.numbers)
        while len(self) < count:
            self._add_text(ABSENT)

    def _add_text(self, text: str) -> None:
        self.codes.append(self.texts.setdefault(text, len(self.texts)))

    def _become_texts(self, numbers: array[float]) -> None:
        self.numbers = None
        for number in numbers:
            self._add_text(_ENCODE(int(number) if number.is_integer() else number))

    def array(self) -> np.ndarray:
        """The numbers float64 [N]; of a column of texts NaN."""
        if self.numbers is None:
            return np.full(len(self), np.nan)
        return np.frombuffer(self.numbers, np.float64) if self.numbers else np.zeros(0)

    def words(self) -> tuple[np.ndarray, list[Any]]:
        """Codes int64 [N], and the value of each code; None where the field is absent."""
        if self.numbers is not None:
            values, codes = np.unique(self.array(), return_inverse=True)
            return codes, values.tolist()
        codes = np.frombuffer(self.codes, np.dtype(f"u{self.codes.itemsize}")).astype(np.int64)
        return codes, [None if text == ABSENT else json.loads(text) for text in self.texts]


class Columns:
    """The columns of all fields; `count` is the number of records."""

    def __init__(self) -> None:
        self.count = 0
        self._columns: dict[Path, Column] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Add the next record."""
        columns, count = self._columns, self.count
        for path, value in _flat(record):
            column = columns.get(path)
            if column is None or len(column) != count:
                column = columns.setdefault(path, Column())
                column.fill(count)
            column.add(value)
        self.count = count + 1

    def items(self) -> Iterator[tuple[Path, Column]]:
        """Each column with its place in a record."""
        for path, column in self._columns.items():
            column.fill(self.count)
            yield path, column

    def get(self, *path: str) -> Column | None:
        """The column at a path; None if no record has it."""
        column = self._columns.get(path)
        if column is not None:
            column.fill(self.count)
        return column

    def names(self, field: str) -> list[str]:
        """The names in a field that holds a value for each of them."""
        return [path[1] for path in self._columns if path[0] == field and len(path) > 1]

    def table(self, field: str) -> np.ndarray:
        """The numbers of a field that holds one for each of its names, float64 [N, names]."""
        columns = [column for path, column in self.items() if path[0] == field and len(path) > 1]
        if not columns:
            return np.zeros((self.count, 0))
        return np.stack([column.array() for column in columns], 1)


def encoded(column: Column, rows: np.ndarray) -> tuple[dict[str, Any], bytes]:
    """How the browser reads the values of these rows, and the bytes of its typed array.

    `same` is a JSON text that all rows share. `texts` are the JSON texts of the codes in the array.
    Without both the array holds numbers, which are to be divided by `over`.
    """
    if column.numbers is not None:
        numbers = column.array()[rows]
        if len(numbers) and (numbers == numbers[0]).all():
            first = float(numbers[0])
            return {"same": _ENCODE(int(first) if first.is_integer() else first)}, b""
        return numbers_encoded(numbers)
    used, codes = np.unique(
        np.frombuffer(column.codes, np.dtype(f"u{column.codes.itemsize}"))[rows],
        return_inverse=True,
    )
    texts = list(column.texts)
    known = [texts[code] for code in map(int, used)]
    if len(known) == 1:
        return {"same": known[0]}, b""
    kind = "<u1" if len(known) <= 1 << 8 else "<u2" if len(known) <= 1 << 16 else "<u4"
    return {"texts": known, "type": kind[1:]}, codes.astype(kind).tobytes()


def numbers_encoded(values: np.ndarray) -> tuple[dict[str, Any], bytes]:
    """Numbers as the smallest whole ones that give exactly these; see `encoded`."""
    for decimals in (0, *_DECIMALS):
        over = 10**decimals
        with np.errstate(over="ignore", invalid="ignore"):
            whole = np.rint(values * over)
            exact = bool((whole / over == values).all())
        if not exact:
            continue
        for kind in _WHOLE:
            limits = np.iinfo(kind)
            if len(whole) == 0 or (whole.min() >= limits.min and whole.max() <= limits.max):
                return {"type": kind[1:], "over": over}, whole.astype(kind).tobytes()
    return {"type": "f8", "over": 1}, values.astype("<f8").tobytes()


def _flat(record: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """The values of a record with their paths; an empty field of several values is one value."""
    for name, value in record.items():
        if isinstance(value, dict) and value:
            for key, part in cast("dict[str, Any]", value).items():
                yield (name, key), part
        else:
            yield (name,), value


_ENCODE: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False).encode
