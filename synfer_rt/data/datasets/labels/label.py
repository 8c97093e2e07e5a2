"""The label of an image, as its dataset writes it and as an expression."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from typing import NamedTuple

from synfer_rt.errors import UserError
from synfer_rt.vocabulary import expressions, label_schemes

_NUMBER = re.compile(r"[+-]?\d{1,9}(\.\d{0,9})?(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)
_LIKE = 0.7
"""The likeness, 0 to 1, from which an unknown word is reported with the nearest expression."""


class Label(NamedTuple):
    """The label that a dataset gives an image.

    `name` is the canonical name of the expression, or a class of the dataset's label scheme. Where
    it is None, `problem` says why; it is None too if the dataset has no label for the image.
    `written` is the label as the dataset writes it: None if it has none, empty if it cannot be
    read. `scheme` is the label scheme by which a number was read.
    """

    name: str | None = None
    problem: str | None = None
    written: str | None = None
    scheme: str | None = None

    @property
    def needs_scheme(self) -> bool:
        """Whether it is a number that no label scheme gives a meaning."""
        return self.scheme is None and bool(self.written and _NUMBER.fullmatch(self.written))

    @property
    def number(self) -> int | None:
        """The number that was read by `scheme`; None for a word and for no label."""
        return number_of(self.written, self.scheme)


UNLABELLED = Label()


def number_of(written: str | None, scheme: str | None) -> int | None:
    """The number that `written` is, if it was read by a label scheme; else None."""
    return None if scheme is None or written is None else int(float(written))


def label_of(value: object, label_scheme: object) -> Label:
    """The label that `value`, a word or a number, stands for.

    `label_scheme` gives numbers their meaning. It may come from the dataset, so it can be anything;
    None if nothing gives them one. None, NaN and blank text mean that there is no label.
    """
    text = "" if value is None else str(value).strip()
    if text.lower() in ("", "nan"):
        return UNLABELLED
    own = label_schemes.own_classes(label_scheme) if isinstance(label_scheme, str) else ()
    name = label_schemes.own_class(text, own) if own else None
    if name is not None or (name := expressions.expression(text)) is not None:
        return Label(name, None, text)
    if not _NUMBER.fullmatch(text):
        return Label(None, _unknown_word(text), text)
    if not float(text).is_integer():
        return Label(None, f"its label {text!r} is not a whole number", text)
    number = int(float(text))
    if label_scheme is None:
        why = f"its label is the number {number}, which has no meaning without `label_scheme`"
        return Label(None, why, text)
    if not isinstance(label_scheme, str) or (classes := _classes(label_scheme)) is None:
        return Label(None, f"its label scheme {reprlib.repr(label_scheme)} is not known", text)
    return Label(*_numbered(number, classes, label_scheme), text, label_scheme)


def _unknown_word(text: str) -> str:
    near = expressions.nearest_expression(text[:40], _LIKE)
    also = f"; the nearest is {near}" if near else ""
    return f"its label {reprlib.repr(text)} is not a known expression{also}"


def _classes(label_scheme: str) -> Sequence[str] | None:
    try:
        return label_schemes.scheme(label_scheme)
    except UserError:
        return None


def _numbered(
    number: int, classes: Sequence[str], label_scheme: str
) -> tuple[str | None, str | None]:
    """The expression that a number stands for, and the problem if it stands for none."""
    index = number - label_schemes.FIRST_NUMBER.get(label_scheme, 0)
    meaning = label_schemes.NON_EXPRESSIONS.get(label_scheme, {}).get(number)
    if 0 <= index < len(classes):
        if label_schemes.is_expression(classes[index]):
            return classes[index], None
        meaning = classes[index].replace("-", "nothing")
    means = f": it means {meaning}" if meaning else ""
    return None, f"its label {number} is not a class of {label_scheme}{means}"
