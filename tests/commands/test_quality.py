"""`sample --quality` and `inspect`, of a bundle with a student."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from synfer_rt.bundle import Bundle
from synfer_rt.commands.cli import main
from synfer_rt.data.writers import read, run_file
from tests.commands.test_cli import refused

Sample = Callable[..., Result]


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    def invoke(bundle: Bundle, *options: object) -> Result:
        words = ["sample", "--bundle", bundle.path, "--out", tmp_path / "out", "--threads", 1]
        words += ["--backend", "onnxruntime-cpu", "--count", 2, *options]
        return CliRunner().invoke(main, list(map(str, words)))

    return invoke


def test_the_last_line_says_which_quality_was_used(
    sample: Sample, student_bundle: Bundle, tmp_path: Path
) -> None:
    result = sample(student_bundle)
    assert result.exit_code == 0, result.output
    assert "; quality fast, ran on onnxruntime-cpu\n" in result.output
    assert "are made at quality best" not in result.output
    assert {record["quality"] for record, _ in read(tmp_path / "out")} == {"fast"}


def test_a_bundle_without_a_student_says_nothing_of_quality(
    sample: Sample, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    result = sample(tiny_bundle, "--steps", 3)
    assert result.exit_code == 0 and "quality" not in result.output
    assert run_file.load(tmp_path / "out")["quality"] == "best"
    assert {record["quality"] for record, _ in read(tmp_path / "out")} == {"best"}


def test_a_setting_that_needs_best_is_told_in_the_words_of_the_options(
    sample: Sample, student_bundle: Bundle
) -> None:
    result = sample(student_bundle, "--guidance", 5, "--steps", 3)
    assert result.exit_code == 0, result.output
    said = (
        "Images are made at quality best, since fast cannot follow --steps 3 (its own is 2) and "
        "--guidance 5 (its own is 3).\n"
    )
    assert result.output.count(said) == 1
    assert "; quality best, ran on" in result.output


def test_with_fast_asked_for_it_is_refused_in_the_words_of_the_options(
    sample: Sample, student_bundle: Bundle, tmp_path: Path
) -> None:
    said = refused(sample(student_bundle, "--quality", "fast", "--negative-prompt", "beard"))
    assert said == (
        "Error: --quality fast cannot follow --negative-prompt (its guidance is built in); change "
        "it, or write --quality best."
    )
    assert not (tmp_path / "out").exists()


def test_a_quality_that_the_bundle_lacks_is_refused(sample: Sample, tiny_bundle: Bundle) -> None:
    assert "synfer-tiny has no quality fast; leave out --quality, or" in refused(
        sample(tiny_bundle, "--quality", "fast")
    )
    assert "Unknown --quality 'quick'" in refused(sample(tiny_bundle, "--quality", "quick"))


def test_inspect_prints_the_qualities(student_bundle: Bundle, tiny_bundle: Bundle) -> None:
    said = CliRunner().invoke(main, ["inspect", str(student_bundle.path)]).output
    said = " ".join(said.split())
    assert (
        "qualities best; fast: denoiser.distilled, 2 steps of ddim from strength 0.9 or 1" in said
    )
    assert "guidance 3 built in" in said and "quality 'fast'" in said
    said = " ".join(CliRunner().invoke(main, ["inspect", str(tiny_bundle.path)]).output.split())
    assert "qualities best defaults" in said
