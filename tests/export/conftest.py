"""The tiny Stable Diffusion checkpoints and their bundles, made once a session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.conftest import built

if TYPE_CHECKING:
    from synfer_rt.bundle import Bundle

Run = Callable[..., dict[str, np.ndarray]]


@pytest.fixture(scope="session")
def sd_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.export.tiny_checkpoint import make_sd

    directory = tmp_path_factory.mktemp("checkpoints") / "sd"
    make_sd(directory)
    return directory


@pytest.fixture(scope="session")
def plain_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without an adapter."""
    from tests.export.tiny_checkpoint import make_sd

    directory = tmp_path_factory.mktemp("checkpoints") / "plain"
    make_sd(directory, adapter=False)
    return directory


@pytest.fixture(scope="session")
def sd2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of Stable Diffusion 2.1's kind, with two layers of text encoder."""
    from tests.export.tiny_checkpoint import make_sd2

    directory = tmp_path_factory.mktemp("checkpoints") / "sd2"
    make_sd2(directory)
    return directory


@pytest.fixture
def mini(mini_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(mini_checkpoint, tmp_path / "mini"))


@pytest.fixture
def sd(sd_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sd_checkpoint, tmp_path / "sd"))


@pytest.fixture(scope="session")
def sd_bundle(sd_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return built(sd_checkpoint, tmp_path_factory.mktemp("bundles") / "sd")


@pytest.fixture(scope="session")
def plain_bundle(plain_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return built(plain_checkpoint, tmp_path_factory.mktemp("bundles") / "plain")


@pytest.fixture(scope="session")
def engine() -> Callable[[Bundle, str], Run]:
    """An engine of a bundle as a function of its inputs by name, to its outputs by name."""
    import onnxruntime

    def opened(bundle: Bundle, name: str) -> Run:
        path = bundle.path / bundle.engines[name].file
        runtime = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [output.name for output in runtime.get_outputs()]
        return lambda **inputs: {
            name: np.asarray(value)
            for name, value in zip(names, runtime.run(None, inputs), strict=True)
        }

    return opened
