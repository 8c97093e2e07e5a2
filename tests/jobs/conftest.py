"""What the tests of augmentation share."""

from __future__ import annotations

from pathlib import Path

import pytest

from synfer_rt.data.datasets import Dataset, read_dataset
from synfer_rt.jobs.originals import usable
from synfer_rt.sampling.sampler import Sampler
from tests.jobs.long_tail import write_long_tail


@pytest.fixture(scope="session")
def long_tail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long tail, a broken image and one without a class."""
    return write_long_tail(tmp_path_factory.mktemp("long-tail"))


@pytest.fixture(scope="session")
def dataset(long_tail: Path, sampler: Sampler) -> Dataset:
    return usable(read_dataset(long_tail), sampler.bundle.image_size)
