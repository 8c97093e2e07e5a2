"""The page of quality against evaluations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("torch", reason="the experiments need synfer-rt[reference]")

from reference.experiments import few_steps

pytestmark = pytest.mark.slow


def test_teacher_and_student_lie_on_one_page(
    student_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_steps, "STEPS", (1,))
    monkeypatch.setattr(few_steps, "SHOWN", (2, 1))
    options = [*student_options, "--student", f"1={tmp_path / 'state.pt'}"]
    result = CliRunner().invoke(few_steps.main, options, catch_exceptions=False)
    assert result.exit_code == 0
    rows = json.loads((tmp_path / "out" / "few_steps.json").read_text())["rows"]
    assert [(row["kind"], row["steps"], row["evaluations"]) for row in rows] == [
        ("teacher", 1, 2),
        ("teacher", 2, 4),
        ("teacher without guidance", 1, 1),
        ("teacher without guidance", 2, 2),
        ("student", 1, 1),
    ]
    # The student is the teacher, so that it makes what the teacher makes without guidance.
    apart = [row["image difference"][0] for row in rows]
    assert apart[1] == 0 and apart[4] == pytest.approx(apart[2], abs=0.1) and apart[4] > 1
    assert rows[1]["diversity"] == [1, 0]
    text = (tmp_path / "out" / "few_steps.md").read_text()
    assert "| teacher, 2 steps (best) | 4 |" in text and "| student, 1 step | 1 |" in text
    size = Image.open(tmp_path / "out" / "few_steps-faces.png").size
    assert size == (74 + 3 * 128, 18 + 8 * 128)


def test_a_student_is_given_with_its_steps() -> None:
    kind = few_steps.StudentFile()
    assert kind.convert("4=a/b=c", None, None) == (4, Path("a/b=c"))
    for wrong in ("unet", "0=unet", "x=unet"):
        result = CliRunner().invoke(few_steps.main, ["--renders", "x", "--student", wrong])
        assert result.exit_code == 2 and "write STEPS=PATH" in result.output


def test_the_sheet_has_a_face_of_every_class_in_order() -> None:
    from reference.evaluation.comparison import Read
    from synfer_rt.sampling.requests import Request

    labels = ("sad", "neutral", "sad", "happy")
    requests = [Request(i, 0, label, "", "", {}, 1.0, 1.0, None) for i, label in enumerate(labels)]
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1).repeat(3, 3)
    ways = [
        few_steps.Point(few_steps.GUIDED, n, 2 * n, lambda *_: images)
        for n in (*few_steps.SHOWN, 6)
    ]
    empty = np.zeros(0)
    found = {way: Read(images + way.steps, {}, empty, empty, empty) for way in ways}
    rows, columns = few_steps.sheet(ways, found, requests)
    assert columns == [f"teacher {n}" for n in (8, 4, 3, 2, 1)]
    first = [(label, [int(image.max()) for image in faces][:2]) for label, faces in rows]
    assert first == [("neutral", [9, 5]), ("happy", [11, 7]), ("sad", [8, 4])]
