"""What every field of a plan needs: a value by its place, checked, and the error that names it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from synfer_rt import ranges
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError, nearest
from synfer_rt.jobs.plan.document import Document, Place
from synfer_rt.paths import local
from synfer_rt.vocabulary.expressions import expression, parse_label
from synfer_rt.vocabulary.label_schemes import (
    FIRST_NUMBER,
    NON_EXPRESSIONS,
    is_expression,
    own_class,
    own_classes,
    scheme,
)
from synfer_rt.vocabulary.scheme_files import SUFFIXES, given_scheme


class Values:
    """The values of a document, for a plan of `bundle`.

    Every method raises UserError with the file and the line. `notes` collects remarks on tables.
    """

    def __init__(self, document: Document, bundle: Bundle) -> None:
        self.document, self.bundle = document, bundle
        self.given = document.values
        self.notes: list[str] = []

    def stop(self, place: Place, message: str) -> NoReturn:
        """Raise the error that something is wrong with the value in `place`."""
        raise self.document.error(place, message)

    def known(self, what: str, place: Place, keys: Sequence[str]) -> None:
        """Raise UserError for a key of the mapping in `place` that is none of `keys`."""
        mapping = self.at(place)
        for key in mapping:
            if key not in keys:
                near = nearest(str(key), keys)
                self.stop((*place, key), f"unknown key {key!r}{what}; the nearest is {near}.")

    def at(self, place: Place) -> Any:
        """The value in a place."""
        value: Any = self.given
        for key in place:
            value = value[key]
        return value

    def mapping(self, place: Place, example: str) -> Mapping[str, Any]:
        """The mapping in a place, which has a key, and names as keys."""
        value = self.at(place)
        if not isinstance(value, dict) or not value:
            self.stop(place, f"'{place[-1]}' must be such as {example}, got {value!r}.")
        found = cast(dict[Any, Any], value)
        for key in found:
            if not isinstance(key, str):
                self.stop((*place, key), f"a name must be a word, got {key!r}; put it in quotes.")
        return found

    def whole(self, key: str, default: int, least: int = 1) -> int:
        """The whole number of `least` or more under a key."""
        try:
            return ranges.whole(key, self.given.get(key, default), least)
        except UserError as error:
            return self.stop((key,), str(error).replace("`", "'"))

    def weight(self, place: Place, what: str) -> float:
        """The number of 0 or more in a place; `what` says what it is."""
        value = self.at(place)
        if not ranges.is_real(value, 0, 1e15):
            self.stop(place, f"{what} must be a number of 0 or more, got {value!r}.")
        return value

    def path(self, place: Place, value: object) -> Path:
        """The path that the text `value` means in the folder of the document."""
        try:
            return self.document.folder / local(value, str(place[-1]))
        except UserError as error:
            return self.stop(place, str(error).replace("`", "'"))

    def setting(self, key: str) -> Any:
        """A setting as `make_run` takes it, where a file writes it otherwise."""
        value = self.given[key]
        if key in ("layout_from", "calibration") and value is not None:
            return self.path((key,), value)
        if key == "label_scheme" and isinstance(value, str) and value.lower().endswith(SUFFIXES):
            return self.path((key,), value)
        if key in ("size", "guidance_interval") and isinstance(value, list):
            items = cast("list[Any]", value)
            return tuple(math.inf if item is None else item for item in items)
        return value

    def label(self, place: Place, name: str) -> str:
        """The class that a name in the document means."""
        try:
            return parse_label(name, self.bundle.classes)
        except UserError as error:
            return self.stop(place, str(error))

    def table(self, place: Place) -> tuple[Path, str | None]:
        """The table and the column of {csv: FILE, column: NAME}; the column may be left out.

        Numbers in the column are read with the `label_scheme` that is beside it, if one is.
        """
        self.known(" of a table", place, ("csv", "column", "label_scheme"))
        table = self.at(place)
        column = table.get("column")
        if column is not None and not isinstance(column, str):
            self.stop((*place, "column"), f"a column's name must be a text, got {column!r}.")
        return self.path((*place, "csv"), table["csv"]), column

    def column(self, place: Place) -> tuple[Path, str]:
        """The table and the column of {csv: FILE, column: NAME}."""
        path, column = self.table(place)
        if column is None:
            self.stop(place, "a table needs its column's name; add 'column'.")
        return path, column

    def table_label(self, place: Place, line: int, word: str) -> str | None:
        """The class that a cell of the table in `place` names; None for what is no expression."""
        table = self.at(place)
        if word.isascii() and word.isdecimal():
            label = self._numbered(place, line, int(word[:9]))
            if label is None:
                return None
        else:
            label = own_class(word, own_classes(self.bundle.label_scheme)) or expression(word)
        if label not in self.bundle.classes:
            known = ", ".join(self.bundle.classes)
            raise UserError(
                f"{self.path(place, table['csv'])}, line {line}: {word!r} is no label of this "
                f"model ({known}); correct it, or remove the row."
            )
        return label

    def _numbered(self, place: Place, line: int, number: int) -> str | None:
        """The class of a number in the label scheme of the table in `place`."""
        table = self.at(place)
        named = table.get("label_scheme")
        if named is None:
            self.stop(
                place, "the labels are numbers; add their 'label_scheme', such as affectnet-8."
            )
        try:
            named = given_scheme(named, folder=self.document.folder).text
        except UserError as error:
            self.stop((*place, "label_scheme"), str(error))
        classes = scheme(named)
        if number in NON_EXPRESSIONS.get(named, {}):
            return None
        at = number - FIRST_NUMBER.get(named, 0)
        if not 0 <= at < len(classes):
            path = self.path(place, table["csv"])
            raise UserError(f"{path}, line {line}: {named} has no class {number}; correct the row.")
        return classes[at] if is_expression(classes[at]) else None
