"""The Python examples of docs/object_storage.md, on runs in a store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.data.writers import open_output
from synfer_rt.data.writers.working_copy import opened
from synfer_rt.jobs.card.card import write_card
from tests.data.storage.conftest import Bucket
from tests.data.writers.small_run import CLASSES, SmallRun

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "object_storage.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def example(bucket: Bucket, run: SmallRun) -> Any:
    """Runs the example that imports a library, on the runs of the page; its variables."""
    for name, format in ("faces", "webdataset"), ("faces-parquet", "parquet"):
        with opened(f"{bucket}/{name}") as place:
            settings = run.sample_settings(format)
            writer = open_output(place.path, settings, resume=False, shard_size=run.shard_size)
            run.write(writer, 10)
            writer.finish()
            write_card(place.path)

    def execute(library: str) -> dict[str, Any]:
        (code,) = [
            code for code in EXAMPLES if re.search(rf"^(import|from) {library}\b", code, re.M)
        ]
        values: dict[str, Any] = {}
        exec(code.replace("s3://bucket/", f"{bucket}/"), values)
        return values

    return execute


def test_webdataset(example):
    pytest.importorskip("webdataset")
    values = example("webdataset")
    assert values["record"]["index"] == 9 and values["image"].size == (8, 8)
    assert CLASSES[values["number"]] == values["record"]["label"]


def test_datasets(example, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    values = example("datasets")
    assert len(values["faces"]) == 10 and values["image"].size == (8, 8)
    assert values["label"] == "neutral"


def test_pandas(example):
    pytest.importorskip("pandas")
    values = example("pandas")
    assert len(values["faces"]) == 10 and list(values["records"]["index"]) == [0, 1, 2, 3]
