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


@pytest.fixture(scope="session")
def mini_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.export.tiny_checkpoint import make_mini

    directory = tmp_path_factory.mktemp("checkpoints") / "mini"
    make_mini(directory)
    return directory


def built(checkpoint: Path, out: Path) -> Bundle:
    from synfer_rt.export.build import build_bundle
    from synfer_rt.export.checkpoint import read_checkpoint

    return build_bundle(read_checkpoint(checkpoint), out)


@pytest.fixture(scope="session")
def mini_bundle(mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return built(mini_checkpoint, tmp_path_factory.mktemp("bundles") / "mini")
