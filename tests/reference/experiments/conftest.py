"""A setting in which an experiment on a student takes seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synfer_rt.bundle import open_bundle


def write_renders(directory: Path, people: int = 24) -> None:
    """Noise of held-out people, two images each."""
    rng, identity = np.random.default_rng(0), 16 * np.arange(people).repeat(2)
    images = rng.integers(0, 256, (2 * people, 64, 64, 3), np.uint8)
    directory.mkdir()
    label = np.arange(2 * people) % 8
    np.savez(directory / "00000.npz", images=images, label=label, identity=identity)


@pytest.fixture
def student_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of the shipped bundle at two steps, and of networks that have learned nothing.

    `tmp_path / "state.pt"` is a student that is the teacher.
    """
    import torch

    from reference import classifiers, student
    from reference.experiments.setting import Setting

    torch.manual_seed(0)
    for name in ("judge", "au-reader", "attribute-reader"):
        classifiers.save(classifiers.NETWORKS[name].build(), tmp_path, name)
    write_renders(tmp_path / "renders")
    shipped = open_bundle()
    quick = replace(shipped, defaults=replace(shipped.defaults, steps=2))
    monkeypatch.setattr(Setting, "bundle", quick)
    denoiser = student.teacher(quick, tmp_path / "work")
    torch.save({"average": denoiser.unet.state_dict()}, tmp_path / "state.pt")
    given = {
        "renders": tmp_path / "renders",
        "classifiers": tmp_path,
        "work": tmp_path / "work",
        "out": tmp_path / "out",
        "per-class": 2,
    }
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]
