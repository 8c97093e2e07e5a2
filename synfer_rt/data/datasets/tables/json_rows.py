"""Tables in JSON files: a list of objects, JSON lines, or an object with a key for each image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from synfer_rt.data.datasets.tables.cells import Row, by_key, is_image_name
from synfer_rt.data.datasets.tables.delimited import encoding_of
from synfer_rt.data.datasets.untyped import is_list, is_mapping

JSON_LINES = (".jsonl", ".ndjson")
JSON = ".json"


def json_rows(file: Path) -> Iterator[Row]:
    """The rows of a JSON file by the keys of their columns. Raises OSError and ValueError."""
    if file.suffix.lower() in JSON_LINES:
        yield from _lines(file)
        return
    content: object = json.loads(file.read_text(encoding_of(file)))
    if is_list(content):
        yield from map(by_key, filter(is_mapping, content))
    elif is_mapping(content) and content and all(is_image_name(str(name)) for name in content):
        for name, entry in content.items():
            said = by_key(entry) if is_mapping(entry) else {"label": entry}
            yield {"filename": name} | said


def _lines(file: Path) -> Iterator[Row]:
    with file.open(encoding=encoding_of(file)) as stream:
        for row in map(json.loads, filter(str.strip, stream)):
            yield by_key(row) if is_mapping(row) else {}
