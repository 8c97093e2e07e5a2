"""Bundles of the tiny checkpoint with AUs, to build again and to unpack."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.export.build.whole_bundle import Options, Source, build_bundle
from tests.conftest import Once


@pytest.fixture
def mini(mini_checkpoint: Path, mini_bundle: Bundle, tmp_path: Path) -> tuple[Source, Path]:
    """A checkpoint and the bundle that was built of it, to change."""
    checkpoint = Path(shutil.copytree(mini_checkpoint, tmp_path / "checkpoint"))
    return Source(checkpoint), Path(shutil.copytree(mini_bundle.path, tmp_path / "out"))


@pytest.fixture(scope="session")
def annotated_checkpoint(mini_checkpoint: Path, once: Once) -> Path:
    """With FERAnno and an AU reader; guides take too long to build."""
    from tests.export.tiny_checkpoint import save_additions

    def make(out: Path) -> None:
        shutil.copytree(mini_checkpoint, out)
        save_additions(out)
        for addition in ("latent_classifier", "image_classifier"):
            shutil.rmtree(out / addition)

    return once("checkpoints/annotated", make)


@pytest.fixture(scope="session")
def half_bundle(annotated_checkpoint: Path, once: Once) -> Bundle:
    """The bundle of that checkpoint in float16."""
    source = Source(annotated_checkpoint)
    make = functools.partial(build_bundle, source, options=Options("fp16"))
    return open_bundle(once("bundles/half", make))


@pytest.fixture
def copy(mini_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the bundle, to be changed."""
    return Path(shutil.copytree(mini_bundle.path, tmp_path / "bundle"))
