"""A tiny model, and photos with labels."""

from __future__ import annotations

from pathlib import Path

import pytest

import synfer_rt
from synfer_rt.api import Model
from tests.small_datasets import picture


@pytest.fixture(scope="session")
def model(tiny_bundle_path: Path) -> Model:
    return synfer_rt.load(tiny_bundle_path, backend="onnxruntime-cpu", threads=1)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "photos"
    for label, shades in {"happy": (10, 60, 110), "sad": (200,)}.items():
        (root / label).mkdir(parents=True)
        for shade in shades:
            (root / label / f"{shade}.png").write_bytes(picture(shade))
    return root
