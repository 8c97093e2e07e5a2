"""Teacher and student of a bundle sample the same requests, each by its own engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the experiments need synfer-rt[reference]")

from reference.experiments.setting import Setting
from reference.experiments.sources import of_student, of_teacher
from synfer_rt.bundle import Bundle
from synfer_rt.sampling.requests import make_requests


def setting(bundle: Bundle, work: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setattr(Setting, "bundle", bundle)
    return Setting(None, work, work, work, work, "onnxruntime-cpu", 1)


def test_teacher_and_student_are_the_two_qualities(
    student_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = setting(student_bundle, tmp_path, monkeypatch)
    requests = make_requests(student_bundle, layout="none", seed=2)[:3]
    made = {}
    for quality, source in (("best", of_teacher(one)), ("fast", of_student(one))):
        made[quality] = source(requests, 1.0, "testing")
        way = student_bundle.trajectory(strength=1.0, quality=quality)
        alone = [sample.image for sample in one.sampler.sample(requests, way, 3)]
        assert np.array_equal(made[quality], np.stack(alone))
    assert not np.array_equal(made["best"], made["fast"])
    assert len(list(tmp_path.glob("samples-*"))) == 2


def test_a_bundle_without_a_student_is_named(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="has no quality fast; give a student by --student"):
        of_student(setting(tiny_bundle, tmp_path, monkeypatch))
