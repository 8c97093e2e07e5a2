"""The file of a plan as plain values, and the line on which each of them is written.

YAML is read by its core schema (YAML 1.2.2, 10.3): `no` is a word, and 1e-3 a number.
"""

from __future__ import annotations

import json
import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import Any, NoReturn, cast

from synfer_rt.errors import UserError, installing

Place = tuple[str | int, ...]
"""Where a value is in a document: the keys and numbers of list items that lead to it."""
Lines = dict[Place, int]


_TEMPLATE = re.compile(r":\s+\{[^{}]*\}\s*[^\s#,]")
"""A line of YAML whose text begins with a placeholder."""


def _unbounded(text: str) -> float:
    return float(text.replace(".", ""))


_CORE: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (re.compile(r"(?:null|Null|NULL|~|)\Z"), lambda text: None),
    (re.compile(r"(?:true|True|TRUE)\Z"), lambda text: True),
    (re.compile(r"(?:false|False|FALSE)\Z"), lambda text: False),
    (re.compile(r"[-+]?[0-9]{1,400}\Z"), int),
    (re.compile(r"0o[0-7]{1,400}\Z"), lambda text: int(text, 8)),
    (re.compile(r"0x[0-9a-fA-F]{1,400}\Z"), lambda text: int(text, 16)),
    (re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"), _unbounded),
    (re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z"), float),
)
"""How plain scalars of YAML are read; what matches nothing is text."""


@dataclass(frozen=True)
class Document:
    """A plan's `values`, from the file `name`; relative paths in it start at `folder`."""

    values: Mapping[str, Any]
    name: str
    folder: Path
    lines: Mapping[Place, int] = field(default_factory=dict[Place, int])

    def error(self, place: Place, message: str) -> UserError:
        """The error that something is wrong with the value in `place`."""
        return UserError(f"{self.where(place)}: {message}")

    def where(self, place: Place) -> str:
        """The file, with the line of the value or of what it is in, if that is known."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.lines:
                return f"{self.name}, line {self.lines[place[:length]]}"
        return self.name


def read_document(path: Path) -> Document:
    """The document in a file whose name ends in .yaml, .yml, .json or .toml.

    Raises UserError for a file that cannot be read or is none of these, for YAML without PyYAML,
    for a key that is written twice, and for a document that is no mapping.
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise UserError(f"A plan must be a .yaml, .json or .toml file, got {path}; rename it.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); name the plan's file."
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; save it as UTF-8.") from None
    lines: Lines = {}
    try:
        values = read(text, str(path), lines)
    except RecursionError:
        raise UserError(f"{path} is nested too deeply; write it flatter.") from None
    except ValueError:  # more digits than Python reads
        raise UserError(f"{path} holds a number that is too long; shorten it.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold keys with values, such as `count: 1000`.")
    return Document(cast("dict[str, Any]", values), str(path), path.parent, lines)


def _stop(name: str, line: int, what: str) -> NoReturn:
    raise UserError(f"{name}, line {line}: {what}")


def _twice(name: str, line: int, key: object) -> NoReturn:
    _stop(name, line, f"{key!r} is written twice; write it once.")


def _yaml(text: str, name: str, lines: Lines) -> Any:
    try:
        yaml: Any = import_module("yaml")
    except ModuleNotFoundError:
        raise UserError(
            f"{name} is YAML, which needs the package pyyaml; {installing('plan')}, or write the "
            "plan as .toml or .json."
        ) from None
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                _stop(name, line, f"the alias *{event.anchor} is not read; write the value out.")
            if getattr(event, "tag", None) is not None:
                tag = event.tag.replace("tag:yaml.org,2002:", "!!")
                _stop(name, line, f"the tag {tag} is not read; leave it out.")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        _stop(name, line, f"the character {chr(error.character)!r} is not allowed; remove it.")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it cannot be read"
        line = 1 if mark is None else mark.line + 1
        written = "".join(text.splitlines()[line - 1 : line])
        remedy = (
            "put a text that begins with { in quotes" if _TEMPLATE.search(written) else "correct it"
        )
        _stop(name, line, f"this is not YAML ({problem}); {remedy}.")
    return {} if node is None else _of_node(node, (), name, lines)


def _of_node(node: Any, place: Place, name: str, lines: Lines) -> Any:
    """The value of a node of PyYAML, whose lines are noted."""
    lines.setdefault(place, node.start_mark.line + 1)
    if node.id == "sequence":
        items = enumerate(node.value)
        return [_of_node(item, (*place, i), name, lines) for i, item in items]
    if node.id != "mapping":
        return _scalar(node)
    found: dict[Any, Any] = {}
    for key_node, item in node.value:
        line = key_node.start_mark.line + 1
        if key_node.id != "scalar":
            _stop(name, line, "a key must be a word; correct it.")
        if (key := _scalar(key_node)) in found:
            _twice(name, line, key)
        lines[(*place, key)] = line
        found[key] = _of_node(item, (*place, key), name, lines)
    return found


def _scalar(node: Any) -> Any:
    """The value of a scalar, of which plain ones, without quotes, may be other than text."""
    if node.style is None:
        for pattern, read in _CORE:
            if pattern.match(node.value):
                return read(node.value)
    return node.value


def _json(text: str, name: str, lines: Lines) -> Any:
    try:
        values = json.loads(text)
    except JSONDecodeError as error:
        _stop(name, error.lineno, f"this is not JSON ({error.msg}); correct it.")
    _locate(text, name, lines)
    return values


def _locate(text: str, name: str, lines: Lines) -> None:
    """Note the lines of the keys and items of sound JSON. Raises UserError for a key twice."""
    decoder, spaces = json.JSONDecoder(), re.compile(r"[ \t\n\r]*")
    breaks = [found.start() for found in re.finditer("\n", text)]

    def after(position: int) -> int:
        found = spaces.match(text, position)
        return position if found is None else found.end()

    def line(position: int) -> int:
        return bisect_left(breaks, position) + 1

    def items(position: int, place: Place, is_object: bool) -> int:
        """The end of an object or list whose first item may begin at `position`."""
        seen: set[str | int] = set()
        number = 0
        position = after(position)
        while text[position] not in "]}":
            key: str | int = number
            begin = position
            if is_object:
                key, position = decoder.raw_decode(text, position)
                if key in seen:
                    _twice(name, line(begin), key)
                seen.add(key)
                position = after(after(position) + 1)
            lines[(*place, key)] = line(begin)
            position = after(value(position, (*place, key)))
            if text[position] == ",":
                position = after(position + 1)
            number += 1
        return position + 1

    def value(position: int, place: Place) -> int:
        if text[position] in "{[":
            return items(position + 1, place, text[position] == "{")
        return decoder.raw_decode(text, position)[1]

    value(after(0), ())


def _toml(text: str, name: str, lines: Lines) -> Any:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        reason = str(error).partition(" (at ")[0]
        _stop(name, line, f"this is not TOML ({reason}); correct it.")
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = _keys(header[1])
            lines.setdefault(table, number)
        elif entry := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            place = (*table, *_keys(entry[1]))
            for length in range(len(table) + 1, len(place) + 1):
                lines.setdefault(place[:length], number)
    return values


def _keys(dotted: str) -> Place:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


_READERS: Mapping[str, Callable[[str, str, Lines], Any]] = {
    ".yaml": _yaml,
    ".yml": _yaml,
    ".json": _json,
    ".toml": _toml,
}
