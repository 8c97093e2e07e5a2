"""A run of a tiny model, images that are labelled, and a long tail that is filled up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle
from synfer_rt.data.datasets import Dataset, read_dataset
from synfer_rt.jobs.originals import usable
from synfer_rt.jobs.sample_run import Run
from synfer_rt.judging.annotators import Annotators
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler
from tests.jobs.long_tail import write_long_tail


@pytest.fixture(scope="session")
def long_tail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long tail, a broken image and one without a class."""
    return write_long_tail(tmp_path_factory.mktemp("long-tail"))


@pytest.fixture(scope="session")
def dataset(long_tail: Path, sampler: Sampler) -> Dataset:
    return usable(read_dataset(long_tail), sampler.bundle.image_size)


@pytest.fixture(scope="session")
def engines(tiny_bundle: Bundle) -> LoadedEngines:
    """The engines of a tiny model, on one thread."""
    return LoadedEngines(tiny_bundle, "onnxruntime-cpu", threads=1)


@pytest.fixture
def run(tiny_bundle: Bundle) -> Run:
    """A run of 21 samples."""
    return Run(tiny_bundle, make_requests(tiny_bundle, seed=5), 21, "dpmpp-2m", 4, 0.9)


@pytest.fixture(scope="session")
def annotators(voting_bundle: Bundle) -> Annotators:
    return Annotators(LoadedEngines(voting_bundle, "onnxruntime-cpu", threads=1))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven images in two classes' folders, a broken one and a text among them."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for i in range(11):
        path = root / ("happy" if i % 2 else "sad") / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 30, 3), np.uint8)).save(path)
    (root / "happy" / "05b.jpg").write_bytes(b"\xff\xd8\xff torn")
    (root / "notes.txt").write_text("not an image")
    return root
