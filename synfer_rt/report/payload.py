"""The gallery's data in the page: columns of records and of what follows from them, and files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from synfer_rt.report.blocks import Files, element, packed
from synfer_rt.report.columns import Columns, encoded, numbers_encoded
from synfer_rt.report.commands_again import again
from synfer_rt.report.duplicates import Nearest
from synfer_rt.report.facts import NONE, Coded, Facts
from synfer_rt.report.reading import Reading

_STATES = ("accepted", "not accepted", "not judged", "unreadable")
"""The states of an image, which the gallery filters by."""


@dataclass(frozen=True)
class Run:
    """A source in the page: its letter, what was read of it, and what was counted and found."""

    letter: str
    read: Reading
    facts: Facts
    nearest: Nearest


@dataclass(frozen=True)
class Payload:
    """The data of the page: `blocks` of arrays and their description, and blocks of `files`."""

    blocks: list[str]
    files: list[Files]

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return sum(map(len, self.blocks)) + sum(files.size for files in self.files)

    def html(self) -> Iterator[bytes]:
        """The elements of the page, in pieces."""
        yield "".join(self.blocks).encode()
        for files in self.files:
            yield from files.html()


def payload(runs: list[Run], page: Path) -> Payload:
    """The data of one or two runs, for a page at `page`."""
    described: list[dict[str, Any]] = []
    html: list[str] = []
    kept: list[Files] = []
    for run in runs:
        blocks = _Blocks(run.letter)
        columns = [blocks.column(list(path), *data) for path, data in _record_columns(run)]
        derived = {name: blocks.column(None, *data) for name, data in _derived(run).items()}
        kinds = {"thumbnails": run.read.thumbnails, "files": run.read.files}
        files = {name: blocks.files(kind) for name, kind in kinds.items() if kind is not None}
        described.append(
            {
                "letter": run.letter,
                "name": run.read.source.name,
                "count": len(run.read.rows),
                "columns": columns,
                "derived": derived,
                "again": asdict(again(run.read.source)),
                "folder": _folder(run.read, page),
                **files,
            }
        )
        html += blocks.html
        kept += [kind for kind in kinds.values() if kind is not None]
    units = list(dict.fromkeys(unit for run in runs for unit in run.facts.units))
    manifest = {"runs": described, "filters": _filters(runs), "units": units}
    return Payload([*html, _json("manifest", manifest)], kept)


class _Blocks:
    """The blocks of a run's arrays, which get numbers in their order."""

    def __init__(self, letter: str) -> None:
        self._letter, self._number = letter, 0
        self.html: list[str] = []

    def column(
        self, path: list[str] | None, form: Mapping[str, Any], data: bytes
    ) -> dict[str, Any]:
        """The description of a column, whose array and texts become a block."""
        form = dict(form)
        if path is not None:
            form = {"path": path, **form}
        texts = form.pop("texts", None)
        if data:
            form["block"] = self._block(data)
        if texts is not None:
            form["texts"] = self._block(json.dumps(texts).encode())
        return form

    def files(self, files: Files) -> dict[str, Any]:
        """The description of files: their blocks, and the lengths of each."""
        lengths = np.frombuffer(files.lengths, np.dtype(f"u{files.lengths.itemsize}"))
        form, data = numbers_encoded(lengths.astype(np.float64))
        described = self.column(None, form, data)
        return {"name": files.name, "perBlock": files.per_block, "lengths": described}

    def _block(self, data: bytes) -> str:
        name = f"{self._letter}-{self._number}"
        self._number += 1
        self.html.append(element(name, packed(data)))
        return name


def _record_columns(run: Run) -> Iterator[tuple[tuple[str, ...], tuple[dict[str, Any], bytes]]]:
    columns: Columns = run.read.columns
    for path, column in columns.items():
        yield path, encoded(column, run.read.rows)


def _derived(run: Run) -> dict[str, tuple[dict[str, Any], bytes]]:
    """What follows from the records and images, by names that no record has."""
    facts, read, rows = run.facts, run.read, run.read.rows
    confidence = np.nan_to_num(facts.confidence[rows], nan=-1.0)
    distance = np.round(np.nan_to_num(run.nearest.distance, nan=-1.0), 2)
    found = {
        "requested": _words(facts.requested, rows),
        "label": _words(facts.label, rows),
        "voted": _words(facts.voted, rows),
        "accepted": _words(_states(facts), rows),
        "confidence": numbers_encoded(confidence),
        "number": numbers_encoded(rows.astype(np.float64)),
        "nearest": numbers_encoded(run.nearest.image.astype(np.float64)),
        "distance": numbers_encoded(distance),
        "width": numbers_encoded(read.sizes[:, 0].astype(np.float64)),
        "height": numbers_encoded(read.sizes[:, 1].astype(np.float64)),
        "linked": numbers_encoded(read.in_file.astype(np.float64)),
    }
    attributes = {name.replace(" ", "-"): coded for name, coded in facts.attributes.items()}
    return found | {name: _words(coded, rows) for name, coded in attributes.items()}


def _states(facts: Facts) -> Coded:
    state = np.where(facts.judged, np.where(facts.accepted, 0, 1), 2)
    return Coded(np.where(facts.readable, state, 3), _STATES)


def _words(coded: Coded, rows: np.ndarray) -> tuple[dict[str, Any], bytes]:
    """A word for each row, as `columns.encoded` describes them; no word is null."""
    used, codes = np.unique(coded.codes[rows], return_inverse=True)
    texts = [json.dumps(coded.words[code]) if code != NONE else "null" for code in used]
    if len(texts) <= 1:
        return {"same": texts[0] if texts else "null"}, b""
    kind = "u1" if len(texts) <= 1 << 8 else "u2"
    return {"texts": texts, "type": kind}, codes.astype(f"<{kind}").tobytes()


def _filters(runs: list[Run]) -> list[dict[str, Any]]:
    """The gallery's filters by words: those that tell images apart."""
    coded = [
        {
            "requested": run.facts.requested,
            "label": run.facts.label,
            "voted": run.facts.voted,
            "accepted": _states(run.facts),
            **{name.replace(" ", "-"): one for name, one in run.facts.attributes.items()},
        }
        for run in runs
    ]
    filters: list[dict[str, Any]] = []
    for name in dict.fromkeys(name for one in coded for name in one):
        words: dict[str, None] = {}
        for one in (one[name] for one in coded if name in one):
            everything = np.ones(len(one.codes), bool)
            counts = one.count(everything)
            words |= dict.fromkeys(w for w, n in zip(one.words, counts, strict=True) if n)
        if len(words) > 1 or (words and name in ("requested", "label")):
            filters.append({"key": name, "words": list(words)})
    return filters


def _folder(read: Reading, page: Path) -> str | None:
    """The relative address of the folder with the images, if they lie in files and are linked."""
    folder = read.source.folder
    if read.files is not None or folder is None or not read.in_file.any():
        return None
    try:
        relative = os.path.relpath(folder.resolve(), page.parent.resolve())
    except ValueError:  # another drive of Windows
        return None
    return quote(relative.replace(os.sep, "/")) + "/"


def _json(name: str, value: Any) -> str:
    """A JSON value in an element; nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>\n'
