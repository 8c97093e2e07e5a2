"""Every example of docs/datasets.md runs, on outputs of several shards."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from synfer_rt.data.writers import open_output
from synfer_rt.jobs.card.card import write_card
from tests.data.writers.small_run import CLASSES, SmallRun

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
OUTPUTS = {"faces": "imagefolder", "faces-tar": "webdataset", "faces-parquet": "parquet"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of the page, of ten images in shards of four."""
    root, run = tmp_path_factory.mktemp("page"), SmallRun()
    for name, format in OUTPUTS.items():
        settings = run.sample_settings(format)
        writer = open_output(root / name, settings, resume=False, shard_size=run.shard_size)
        run.write(writer, 10)
        writer.finish()
        write_card(root / name)
    return root


def of(library: str) -> list[str]:
    return [code for code in EXAMPLES if re.search(rf"^(import|from) {library}\b", code, re.M)]


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def test_datasets(here):
    plain, shards, accepted = of("datasets")
    values: dict = {}
    exec(plain, values)
    assert values["names"] == CLASSES and values["label"] == "neutral"
    assert values["image"].size == (8, 8) and sum(values["smiles"]) == 1.5
    exec(shards, values)
    assert values["names"] == CLASSES and values["label"] == "neutral"
    assert values["image"].size == (8, 8) and sum(values["smiles"]) == 1.5
    exec(accepted, values)
    assert len(values["accepted"]) == 3


def test_webdataset(here):
    pytest.importorskip("webdataset")
    values: dict = {}
    exec(of("webdataset")[0], values)
    assert values["record"]["index"] == 9 and values["image"].size == (8, 8)
    assert CLASSES[values["number"]] == values["record"]["label"]


def test_pandas(here):
    pytest.importorskip("pandas")
    values: dict = {}
    exec(of("pandas")[0], values)
    assert len(values["faces"]) == 10 and values["smiles"].sum() == 1.5


def in_own_process(place: Path, library: str, check: str) -> None:
    """Run the library's example, then the check; these libraries start threads and servers."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    code = f"if __name__ == '__main__':\n    exec({of(library)[0]!r})\n    assert {check}\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "DO_NOT_TRACK": "true", "RAY_ADDRESS": "local"},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_ray(place):
    in_own_process(place, "ray", "counts == (10, 10, 10)")


@pytest.mark.slow
def test_litdata(place):
    in_own_process(
        place,
        "litdata",
        "len(faces) == 10 and sorted(face['index'] for face in faces) == list(range(10)) "
        "and png.startswith(b'\\x89PNG') and label in ('neutral', 'happy', 'sad')",
    )


@pytest.mark.slow
def test_polars(place):
    in_own_process(place, "polars", "len(faces) == 10 and smiles.sum() == 1.5")
