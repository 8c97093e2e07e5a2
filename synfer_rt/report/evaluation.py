"""The section on what `synfer-rt evaluate` wrote of a run: any JSON object, shown as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Element

from synfer_rt.report.markup import tag

FILE = "evaluation.json"
_ABOUT = ("format", "version", "synfer_rt", "run", "real", "networks", "runtime", "subset")
"""What says how something was measured, and not what was found."""
_NOTES = "notes"
_LONGEST = 1 << 22
"""A longer file is none of these, and not read to the end."""


def evaluation_beside(*folders: Path, prefix: str = "") -> Any:
    """The content of the evaluation in the first of some folders that has one; None without."""
    for folder in folders:
        try:
            with (folder / f"{prefix}{FILE}").open("rb") as file:
                return json.loads(file.read(_LONGEST))
        except (OSError, ValueError, RecursionError):
            continue
    return None


def evaluation_tables(found: Any) -> list[Element]:
    """Its notes, a table for each of its parts, and behind a fold what it is of."""
    if found is None:
        return []
    parts = _fields(found) or {"": found}
    notes = [x for x in cast("list[Any]", parts.get(_NOTES) or []) if isinstance(x, str)]
    shown = [tag("p", note, class_="note") for note in notes]
    measured = {name: x for name, x in parts.items() if name not in (*_ABOUT, _NOTES)}
    plain = {name: x for name, x in measured.items() if not _holds_more(x)}
    shown += _plain_table("", plain)
    for name in measured:
        shown += [] if name in plain else tables(name, measured[name])
    about = [table for name in parts if name in _ABOUT for table in tables(name, parts[name])]
    if about:
        title = tag("summary", "How it was measured")
        shown.append(tag("details", title, tag("div", about, class_="evaluation")))
    return shown


def tables(title: str, value: Any) -> list[Element]:
    """An object or list as tables: of its plain values, and of each of its inner objects.

    Objects whose values are objects of plain values are one table: a line for each of these.
    """
    fields = _fields(value)
    if fields is None:
        return _plain_table("", {title: value})
    inner = {name: x for name, x in fields.items() if _holds_more(x)}
    lines = {name: _fields(x) or {} for name, x in inner.items()}
    if len(lines) > 1 and not any(_holds_more(x) for line in lines.values() for x in line.values()):
        inner = {}
    else:
        lines = {}
    found = _plain_table(title, {name: x for name, x in fields.items() if not _holds_more(x)})
    found += [_matrix(title, lines)] if lines else []
    for name, part in inner.items():
        found += tables(f"{title} · {name}".strip(" ·"), part)
    return found


def _plain_table(title: str, values: dict[str, Any]) -> list[Element]:
    """A line for each value that is known; no table if none is."""
    rows = [
        tag("tr", tag("th", _words(name), scope="row"), tag("td", _text(x), class_="text"))
        for name, x in values.items()
        if x is not None and x != []
    ]
    return [tag("table", _caption(title), tag("tbody", rows))] if rows else []


def _matrix(title: str, lines: dict[str, dict[str, Any]]) -> Element:
    """A line for each of some objects, a column for each name in them; empty lines are left out."""
    names = list(dict.fromkeys(name for line in lines.values() for name in line))
    head = [tag("th", ""), [tag("th", _words(name), scope="col") for name in names]]
    rows = [
        tag(
            "tr",
            tag("th", _words(name), scope="row"),
            [tag("td", _text(line.get(n))) for n in names],
        )
        for name, line in lines.items()
        if any(line.values())
    ]
    return tag("table", _caption(title), tag("thead", tag("tr", head)), tag("tbody", rows))


def _caption(title: str) -> Element | None:
    return tag("caption", _words(title)) if title else None


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields of an object; those of a list of objects are its numbers. None for others."""
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    if isinstance(value, list):
        items = cast("list[Any]", value)
        if items and all(isinstance(item, dict) for item in items):
            return {str(number): item for number, item in enumerate(items, 1)}
    return None


def _holds_more(value: Any) -> bool:
    return bool(_fields(value))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        words = list(map(_text, cast("list[Any]", value)))
        return (" to " if len(words) == 2 else ", ").join(words)
    return "" if value is None or value == {} else str(value)
