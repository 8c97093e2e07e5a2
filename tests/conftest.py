"""What tests of the run side share: one tiny bundle of real engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.sampler import Sampler
from tests import tiny_bundle as tiny


@pytest.fixture(scope="session")
def tiny_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's directory; tests that change it copy it first."""
    return tiny.build(tmp_path_factory.mktemp("bundle") / "tiny").path


@pytest.fixture(scope="session")
def tiny_bundle(tiny_bundle_path: Path) -> Bundle:
    return open_bundle(tiny_bundle_path)


@pytest.fixture(scope="session")
def sampler(tiny_bundle: Bundle) -> Sampler:
    return Sampler(tiny_bundle, "onnxruntime-cpu", threads=1)
