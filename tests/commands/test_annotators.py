"""Whoever has photographs judged by annotators that have seen none is told so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from synfer_rt.bundle import MANIFEST
from synfer_rt.commands.cli import main
from tests.small_datasets import put

SAID = "know coloured noise only"


@pytest.fixture
def limited(tiny_bundle_path: Path, tmp_path: Path) -> Path:
    """The tiny bundle, whose manifest says what its annotators were trained on."""
    bundle = tmp_path / "limited"
    shutil.copytree(tiny_bundle_path, bundle)
    fields = json.loads((bundle / MANIFEST).read_text()) | {"annotators_know": "coloured noise"}
    (bundle / MANIFEST).write_text(json.dumps(fields))
    return bundle


def run(command: str, bundle: Path, *options: object) -> Result:
    how = ("--bundle", bundle, "--backend", "onnxruntime-cpu", "--threads", 1)
    found = CliRunner().invoke(main, [command, *map(str, (*options, *how))])
    assert found.exit_code == 0, found.output
    return found


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    put(tmp_path / "faces", sad__a=20, sad__b=40, happy__c=60)
    return tmp_path / "faces"


def test_label_says_it_once(limited: Path, faces: Path, tmp_path: Path):
    found = run("label", limited, faces, "--out", tmp_path / "t.csv", "--batch", 1)
    assert found.stderr.count(SAID) == 1


def test_augment_says_it_where_there_are_additions(limited: Path, faces: Path, tmp_path: Path):
    assert run("augment", limited, faces, "--out", tmp_path / "a").stderr.count(SAID) == 1
    none = run("augment", limited, faces, "--out", tmp_path / "b", "--balance", 1)
    assert SAID not in none.stderr


def test_sample_says_it_of_photos_alone(limited: Path, faces: Path, tmp_path: Path):
    photo = ("--layout-from", faces / "sad" / "a.jpg", "--layout-strength", 0.5)
    assert run("sample", limited, "--count", 1, "--out", tmp_path / "a", *photo).stderr.count(SAID)
    assert SAID not in run("sample", limited, "--count", 1, "--out", tmp_path / "b").stderr


def test_a_bundle_that_says_nothing_of_it_warns_of_nothing(
    tiny_bundle_path: Path, faces: Path, tmp_path: Path
):
    assert " only:" not in run("label", tiny_bundle_path, faces, "--out", tmp_path / "t.csv").stderr


def test_inspect_shows_it(limited: Path):
    found = CliRunner().invoke(main, ["inspect", str(limited)])
    assert "they know coloured noise only" in " ".join(found.output.split())
