"""The section on what `synfer-rt evaluate` wrote of a run: any JSON object, shown as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Element

from synfer_rt.report.markup import Children, tag

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


def evaluation_table(found: Any) -> Children:
    """Its notes, a group of lines for each of its other parts, and behind a fold what it is of."""
    if found is None:
        return None
    parts = cast("dict[str, Any]", found) if isinstance(found, dict) else {"": found}
    notes = parts.get(_NOTES)
    measured = {name: x for name, x in parts.items() if name not in (*_ABOUT, _NOTES)}
    about = {name: x for name, x in parts.items() if name in _ABOUT}
    fold = tag("details", tag("summary", "How it was measured"), _table(about)) if about else None
    sentences = cast("list[Any]", notes) if isinstance(notes, list) else []
    return [tag("p", str(note), class_="note") for note in sentences], _table(measured), fold


def _table(parts: dict[str, Any]) -> Element:
    groups: list[Element] = []
    for name, part in parts.items():
        lines = [line for line in rows(part) if line[1]]
        if len(lines) > 1:
            heading = tag("th", tag("b", _plain(name)), colspan=2, scope="rowgroup")
            groups.append(
                tag("tbody", tag("tr", heading, class_="group"), [_row(*line) for line in lines])
            )
        elif lines:
            groups.append(tag("tbody", _row(f"{name} · {lines[0][0]}".strip(" ·"), lines[0][1])))
    return tag("table", groups, class_="grouped")


def _row(name: str, text: str) -> Element:
    return tag("tr", tag("th", _plain(name), scope="row"), tag("td", text, class_="text"))


def _plain(name: str) -> str:
    return name.replace("_", " ")


def rows(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The values of an evaluation with their names, those of inner objects after the outer's."""
    if isinstance(value, dict):
        for key, part in cast("dict[str, Any]", value).items():
            yield from rows(part, f"{name} · {key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(x, dict | list) for x in cast(Any, value)):
        for number, part in enumerate(cast("list[Any]", value), 1):
            yield from rows(part, f"{name} {number}".strip())
    else:
        yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        words = list(map(_text, cast("list[Any]", value)))
        return (" to " if len(words) == 2 else ", ").join(words)
    return "" if value is None else str(value)
