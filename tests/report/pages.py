"""What is in a page, read without a browser."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MARKUP = "<b>&quot;bold&quot;<b>"


@dataclass(frozen=True)
class Page:
    text: str
    manifest: dict[str, Any]
    blocks: dict[str, str]

    def values(self, form: dict[str, Any], count: int) -> list[Any]:
        """The values of a column; None where the record has none."""
        if "same" in form:
            return [json.loads(form["same"])] * count
        kind = {"u": "<u", "i": "<i", "f": "<f"}[form["type"][0]] + form["type"][1]
        array = np.frombuffer(gzip.decompress(base64.b64decode(self.blocks[form["block"]])), kind)
        if "texts" not in form:
            return (array / form["over"]).tolist()
        texts = json.loads(gzip.decompress(base64.b64decode(self.blocks[form["texts"]])))
        return [json.loads(texts[code] or "null") for code in array]

    def records(self, run: int = 0) -> list[dict[str, Any]]:
        """The records of a run, rebuilt from the columns."""
        described = self.manifest["runs"][run]
        found: list[dict[str, Any]] = [{} for _ in range(described["count"])]
        for column in described["columns"]:
            name, *key = column["path"]
            for record, value in zip(found, self.values(column, len(found)), strict=True):
                if key:
                    record.setdefault(name, {})[key[0]] = value
                else:
                    record[name] = value
        return found

    def derived(self, name: str, run: int = 0) -> list[Any]:
        described = self.manifest["runs"][run]
        return self.values(described["derived"][name], described["count"])

    def files(self, kind: str, run: int = 0) -> list[bytes]:
        described = self.manifest["runs"][run][kind]
        lengths = self.values(described["lengths"], self.manifest["runs"][run]["count"])
        found: list[bytes] = []
        for first in range(0, len(lengths), described["perBlock"]):
            block, place = self.blocks[f"{described['name']}-{first // described['perBlock']}"], 0
            for length in map(int, lengths[first : first + described["perBlock"]]):
                found.append(base64.b64decode(block[place : place + length]))
                place += length
        return found


def opened(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    manifest = re.search(r'<script type="application/json" id="manifest">(.*?)</script>', text)
    blocks = re.findall(r'<script type="text/plain" id="([^"]+)">([^<]*)</script>', text)
    assert manifest
    return Page(text, json.loads(manifest[1]), dict(blocks))


def table(page: Page, section: str, number: int = 0) -> list[list[str]]:
    """The cells of one of a section's tables, as texts without their markup."""
    body = page.text.split(f'<section id="{section}">')[1].split("</section>")[0]
    body = body.split("<table")[number + 1].split("</table>")[0]
    rows = re.findall(r"<tr.*?</tr>", body, re.DOTALL)
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]*>", "", cell).strip() for cell in row] for row in cells]
