"""Tables of `label` are read whatever their format and wherever their images lie."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synfer_rt import UserError, write_report
from synfer_rt.bench.host_side import InstantEngines
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.label_table import Table
from synfer_rt.label_lines import blank_line
from synfer_rt.records import filled
from tests.report.conftest import write
from tests.report.pages import opened, table
from tests.small_datasets import picture

VOTES = ["classifier.small", "feranno"]


def labelled(
    instant: InstantEngines,
    path: Path,
    lines: list[dict[str, Any]],
    folder: str,
    calibrated: bool = False,
) -> Path:
    form = blank_line(instant.bundle, VOTES, "instant", calibrated)
    made = Table(path, {"folder": folder, "bundle": "0123"}, form, False)
    made.write([filled(form, {"index": i, **line}) for i, line in enumerate(lines)])
    made.finish()
    return path


def line(
    instant: InstantEngines, name: str, label: str, given: str = "", **values: Any
) -> dict[str, Any]:
    classes = instant.bundle.classes
    probabilities = {one: 0.7 if one == label else 0.3 / (len(classes) - 1) for one in classes}
    said = {"label": label, "given_label": given, "asked": bool(given), "accepted": label == given}
    votes = dict.fromkeys(VOTES, label)
    return {"file_name": name, "probabilities": probabilities, "votes": votes, **said, **values}


@pytest.fixture
def lines(instant: InstantEngines, tmp_path: Path) -> list[dict[str, Any]]:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "<i>a<i>.png").write_bytes(picture(90))
    Image.open(io.BytesIO(picture(60))).save(tmp_path / "photos" / "b.bmp")
    units = dict.fromkeys(instant.bundle.au_names or (), 0.25)
    return [
        line(instant, "<i>a<i>.png", "happy", "happy", aus=units),
        line(instant, "b.bmp", "sad", "happy", aus=units),
        line(instant, "gone.png", "sad"),
        {"file_name": "broken.png", "error": "it is cut short"},
    ]


@pytest.mark.parametrize("calibrated", [False, True], ids=["plain", "with label sets"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_table_is_shown(
    instant: InstantEngines,
    tmp_path: Path,
    lines: list[dict[str, Any]],
    suffix: str,
    calibrated: bool,
):
    if calibrated:
        lines[1] |= {"label_set": {"sad": True, "happy": True}, "coverage": 0.9}
    path = labelled(instant, tmp_path / f"labels.{suffix}", lines, "photos", calibrated)
    write_report(path, page=tmp_path / "page.html")
    page = opened(tmp_path / "page.html")
    form = blank_line(instant.bundle, VOTES, "instant", calibrated)
    written = [filled(form, {"index": i, **one}) for i, one in enumerate(lines)]
    assert page.records() == json.loads(json.dumps(written))
    states = ["accepted", "not accepted", "not judged", "unreadable"]
    assert page.derived("accepted") == states
    assert [bool(file) for file in page.files("files")] == [True, True, False, False]
    assert page.files("files")[1].startswith(b"\x89PNG")  # no browser shows every BMP
    rows = table(page, "classes")
    assert rows[-1][:5] == ["all", "2", "3", "2", "1"]
    assert "<i>" not in page.text


def test_images_in_an_archive_are_found(instant: InstantEngines, tmp_path: Path):
    out = write(instant, tmp_path / "faces", "webdataset", count=3)
    names = [item.name for item in read_dataset(out).items]
    path = labelled(
        instant, tmp_path / "t.csv", [line(instant, name, "sad") for name in names], "faces"
    )
    write_report(path, page=tmp_path / "page.html")
    page = opened(tmp_path / "page.html")
    assert all(file.startswith(b"\x89PNG") for file in page.files("files"))
    assert page.derived("linked") == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "file_name,label\na.png,sad\n", "is no table of `synfer-rt label`"),
        ("t.jsonl", None, "There is no table or run"),
        ("photos", None, "holds no run of synfer-rt"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, name: str, content: str | None, message: str):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        write_report(tmp_path / name, page=tmp_path / "page.html")


def test_a_damaged_table_is_refused(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text('{"file_name": ')
    (tmp_path / "t.jsonl.run.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        write_report(tmp_path / "t.jsonl", page=tmp_path / "page.html")
