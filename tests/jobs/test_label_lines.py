"""Tables of `label` load together, whatever their images are."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.label_table import Table
from synfer_rt.jobs.label import label_images
from synfer_rt.judging.acceptance import acceptance
from synfer_rt.judging.annotators import Annotators
from synfer_rt.label_lines import NOT_READ, blank_line
from synfer_rt.records import Record


def annotators(bundle: Bundle) -> Annotators:
    return Annotators(LoadedEngines(bundle, "onnxruntime-cpu", threads=1))


def blank(members: Annotators) -> Record:
    return blank_line(members.bundle, members.members, members.engines.backend)


def tables(root: Path, bundle: Bundle, suffix: str) -> list[Path]:
    """Of photos without labels, with a number, with labels beside a torn file, of that alone."""
    draw = np.random.default_rng(0)
    image = Image.fromarray(draw.integers(0, 256, (40, 30, 3), np.uint8))
    for name in ("labelled/sad", "labelled/happy", "numbers", "unlabelled", "broken"):
        (root / name).mkdir(parents=True)
        image.save(root / name / "a.png")
    (root / "numbers" / "list.csv").write_text("image,label\na.png,6\n")
    (root / "broken" / "a.png").write_bytes(b"torn")
    shutil.copy(root / "broken" / "a.png", root / "labelled" / "sad" / "b.png")
    found, members = [], annotators(bundle)
    for name in ("unlabelled", "numbers", "labelled", "broken"):
        path = root / f"{name}{suffix}"
        dataset = read_dataset(root / name)
        label_images(dataset, members, Table(path, {}, blank(members), False), acceptance(), 4)
        found.append(path)
    return found


def types(value: Any) -> Any:
    return {name: types(x) for name, x in value.items()} if isinstance(value, dict) else type(value)


def test_every_line_has_all_fields_of_one_type(voting_bundle: Bundle, tmp_path: Path) -> None:
    form = blank(annotators(voting_bundle))
    for path in tables(tmp_path, voting_bundle, ".jsonl"):
        for line in map(json.loads, path.read_text().splitlines()):
            assert list(line) == list(form) and types(line) == types(form)


@pytest.mark.parametrize("reverse", [False, True])
def test_tables_load_together(voting_bundle: Bundle, tmp_path: Path, reverse: bool) -> None:
    from datasets import load_dataset

    paths = tables(tmp_path, voting_bundle, ".jsonl")[:: -1 if reverse else 1]
    cache = str(tmp_path / "cache")
    found = load_dataset("json", data_files=[*map(str, paths)], split="train", cache_dir=cache)
    assert list(found) == [json.loads(x) for path in paths for x in path.read_text().splitlines()]


@pytest.mark.parametrize("reverse", [False, True])
def test_tables_of_csv_load_together(voting_bundle: Bundle, tmp_path: Path, reverse: bool) -> None:
    from datasets import load_dataset

    paths = tables(tmp_path, voting_bundle, ".csv")[:: -1 if reverse else 1]
    found: Any = load_dataset(
        "csv",
        data_files=[*map(str, paths)],
        keep_default_na=False,
        converters={"written_label": str},
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    said = [row for path in paths for row in csv.DictReader(path.open(newline=""))]
    assert len(found) == len(said)
    for row, cells in zip(found, said, strict=True):
        assert {name: str(value) for name, value in row.items()} == cells
        assert isinstance(row["asked"], bool) and isinstance(row["AU12"], float)


def test_units_that_nothing_reads_are_not_said_to_be_absent(
    tiny_bundle: Bundle, voting_bundle: Bundle, tmp_path: Path
) -> None:
    for bundle, read in ((tiny_bundle, False), (voting_bundle, True)):
        paths = tables(tmp_path / bundle.path.name, bundle, ".jsonl")
        for line in (json.loads(x) for path in paths for x in path.read_text().splitlines()):
            if read and not line["error"]:
                assert all(0 <= value <= 1 for value in line["aus"].values())
            else:
                assert set(line["aus"].values()) == {NOT_READ}
