"""Datasets of samples."""

from __future__ import annotations

from pathlib import Path

import pytest

import synfer_rt
from synfer_rt import api
from synfer_rt.api import Model
from synfer_rt.data.writers import read, run_file
from synfer_rt.jobs.progress import Progress
from synfer_rt.jobs.sample_settings import SampleSettings


def test_an_interrupted_run_says_how_to_continue_and_does(model: Model, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.done > 4:
            raise KeyboardInterrupt

    settings: SampleSettings = {"steps": 1, "seed": 2}
    with pytest.raises(KeyboardInterrupt) as interruption:
        model.write(tmp_path / "out", count=8, batch=2, on_progress=stop, **settings)
    (said,) = interruption.value.__notes__
    assert said.startswith("Interrupted with 4 of 8 images written") and "`resume=True`" in said
    seen: list[Progress] = []
    written = model.write(
        tmp_path / "out", count=8, batch=2, resume=True, on_progress=seen.append, **settings
    )
    assert written.count == 8 and written.summary.images == 4
    assert seen[0] == Progress(4, 8, before=4) and seen[-1] == Progress(8.0, 8, before=4)
    whole = model.write(tmp_path / "whole", count=8, **settings)
    assert [png for _, png in read(Path(whole.path))] == [
        png for _, png in read(Path(written.path))
    ]


def test_a_run_is_written_where_the_command_would_find_it(model: Model, tmp_path: Path) -> None:
    model.write(tmp_path / "out", count=1, steps=1)
    assert run_file.load(tmp_path / "out")["count"] == 1


def test_verify_gives_faults(model: Model, tmp_path: Path) -> None:
    written = model.write(tmp_path / "out", count=2, steps=1, labels=["happy"])
    assert synfer_rt.verify(written.path) == api.Verification(2, ())
    next(Path(written.path).rglob("*.png")).unlink()
    found = synfer_rt.verify(written.path)
    assert found.count == 2 and found.faults
    assert found.faults[0].problem.endswith("is missing")
