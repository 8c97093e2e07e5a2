"""Files beside a dataset that list its classes and so give its label numbers their meaning.

`classes.txt` has a class on each line, in the order of their numbers from 0, or with its number.
`class_indices.json`, as Keras and many training scripts write it, is a list of classes, or an
object from classes to numbers or from numbers to classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from synfer_rt.data.datasets.untyped import is_list, is_mapping
from synfer_rt.errors import UserError
from synfer_rt.vocabulary import label_schemes

_SUFFIXES = (".txt", ".json")
_STEMS = (
    "classes", "class_names", "classnames", "labels", "label_names", "label_map", "labelmap",
    "class_indices", "class_to_idx", "id2label", "label2id",
)  # fmt: skip
_NUMBER_FIRST = re.compile(r"(\d{1,3})[\s,:;=.)-]+(\S.*)", re.ASCII)
_NUMBER_LAST = re.compile(r"(.*\S)[\s,:;=]+(\d{1,3})", re.ASCII)
_LONGEST = 100
"""Bytes per class; a longer file lists something else."""
_MOST = 100


def class_list(root: Path, files: Sequence[Path]) -> tuple[Path, str] | None:
    """The file in `root` itself that lists the classes, and the label scheme that they make.

    None if there is none; a file of such a name that lists other things than expressions does not
    count. Raises UserError for two files that differ.
    """
    found: list[tuple[Path, str]] = []
    for file in files:
        if file.suffix.lower() not in _SUFFIXES or file.stem.lower() not in _STEMS:
            continue
        if file.parent != root:
            continue
        if (scheme := _scheme(file)) is not None:
            found.append((file, scheme))
    if len({label_schemes.scheme(scheme) for _, scheme in found}) > 1:
        names = " and ".join(file.name for file, _ in found)
        raise UserError(
            f"{root} has {names}, which list different classes; remove one, or give the right "
            "classes as `label_scheme`."
        )
    return found[0] if found else None


def _scheme(file: Path) -> str | None:
    try:
        if file.stat().st_size > _LONGEST * _MOST:
            return None
        text = file.read_text("utf-8-sig")
        pairs = _of_json(json.loads(text)) if file.suffix.lower() == ".json" else _of_lines(text)
        scheme = ",".join(_ordered(pairs))
        classes = filter(label_schemes.is_expression, label_schemes.scheme(scheme))
        if not all(map(label_schemes.is_known, classes)):
            return None
    except (OSError, ValueError, TypeError, RecursionError, UserError):
        return None
    return scheme


def _of_lines(text: str) -> list[tuple[int | None, str]]:
    pairs: list[tuple[int | None, str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if found := _NUMBER_FIRST.fullmatch(line):
            pairs.append((int(found[1]), found[2]))
        elif found := _NUMBER_LAST.fullmatch(line):
            pairs.append((int(found[2]), found[1]))
        else:
            pairs.append((None, line))
    return pairs


def _of_json(content: object) -> list[tuple[int | None, str]]:
    if is_list(content):
        return [(None, str(name)) for name in content]
    if not is_mapping(content):
        raise ValueError("neither a list nor an object")
    if all(str(key).isdecimal() for key in content):
        return [(int(str(key)), str(name)) for key, name in content.items()]
    return [(int(str(number)), str(name)) for name, number in content.items()]


def _ordered(pairs: Sequence[tuple[int | None, str]]) -> list[str]:
    """The classes in the order of their numbers, with `-` for a number that has none."""
    numbers = [number for number, _ in pairs]
    if any("," in name for _, name in pairs) or len(pairs) > _MOST:
        raise ValueError("no list of names")
    if all(number is None for number in numbers):
        return [name for _, name in pairs]
    by_number = {number: name for number, name in pairs if number is not None}
    if len(by_number) != len(pairs) or not 0 <= max(by_number) < _MOST:
        raise ValueError("some names have a number and others none, or two have one")
    return [by_number.get(number, "-") for number in range(max(by_number) + 1)]
