"""`train-annotator` and `train-guide` as commands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch", reason="training needs synfer-rt[export]")

from synfer_rt.commands.cli import main
from synfer_rt.export.graphs import trained_feranno
from tests.export.training.photos import put_photos


def run(command: str, checkpoint: Path, data: Path, *more: str) -> Result:
    return CliRunner().invoke(main, [command, str(checkpoint), "--data", str(data), *more])


QUICK = ("--classes", "neutral,happy,sad", "--epochs", "1", "--batch", "16")


def test_the_commands_print_what_they_measured_and_where_it_is(
    mini_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "annotator"
    found = run(
        "train-annotator", mini_checkpoint, photos, "--out", str(out), "--width", "16", *QUICK
    )
    assert found.exit_code == 0, found.output
    assert "held-out accuracy 0." in found.stdout or "held-out accuracy 1." in found.stdout
    assert "expected calibration error (15 bins)" in found.stdout
    assert f"The network is in {out}" in found.stdout
    assert "epoch 1 of 1" in found.stderr and "MB are free" not in found.stdout
    found = run("train-guide", mini_checkpoint, photos, "--out", str(tmp_path / "guide"), *QUICK)
    assert found.exit_code == 0, found.output
    assert found.stdout.count("held-out accuracy") == 4


def test_bad_input_is_one_sentence_and_exit_code_2(
    mini_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    out = ("--out", str(tmp_path / "a"))
    one = put_photos(tmp_path / "one", classes=("happy",))
    cases = [
        (run("train-annotator", mini_checkpoint, one, *out), "one class alone"),
        (run("train-annotator", mini_checkpoint, photos, *out), "--classes neutral,happy,sad."),
        (run("train-guide", mini_checkpoint, tmp_path / "no", *out), "no file or directory"),
        (run("train-guide", tmp_path / "no", photos, *out), "no directory"),
        (run("train-guide", mini_checkpoint, photos, *out, "--classes", "raf"), "label scheme"),
        (run("train-guide", mini_checkpoint, photos, *out, "--face", "only"), "--face needs"),
        (
            run("train-guide", mini_checkpoint, photos, *out, "--held-out", "val"),
            "--held-out images",
        ),
    ]
    for found, said in cases:
        assert found.exit_code == 2 and said in found.stderr, found.output
        assert "Traceback" not in found.output


@pytest.mark.parametrize("command", ["train-annotator", "train-guide"])
def test_without_torch_the_commands_say_what_to_install(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Missing:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "synfer_rt.export.training.api":
                raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.delitem(sys.modules, "synfer_rt.export.training.api", raising=False)
    monkeypatch.delattr("synfer_rt.export.training.api", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    found = run(command, Path("x"), Path("y"))
    assert found.exit_code == 2
    assert f"{command} needs torch" in found.stderr
    assert "pip install '.[export]'` in the root of a clone" in found.stderr
    assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0


def test_a_prompt_names_classes_that_the_prompts_do_not_know() -> None:
    assert trained_feranno.prompt_of("happy,sad") == "a photo of a happy sad face"
