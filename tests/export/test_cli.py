"""`synfer-rt build-engines`: its options, and what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
from click.testing import CliRunner

from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.export.cli import build_engines
from tests.export.tiny_checkpoint import change


def test_each_classifier_needs_its_labels_and_its_input(tmp_path: Path) -> None:
    arguments = [str(tmp_path), "--out", str(tmp_path / "out"), "--classifier", "x.onnx"]
    result = CliRunner().invoke(build_engines, arguments)
    assert isinstance(result.exception, UserError)
    assert "got 1, 0 and 0 of them" in str(result.exception)


@pytest.mark.parametrize("tolerance", ["0", "-1", "nan"])
def test_a_tolerance_that_is_no_error_is_refused(tmp_path: Path, tolerance: str) -> None:
    arguments = [str(tmp_path), "--out", str(tmp_path / "out"), "--tolerance", tolerance]
    result = CliRunner().invoke(build_engines, arguments)
    assert isinstance(result.exception, UserError)
    assert "`tolerance` must be a number above 0" in str(result.exception)


@pytest.mark.parametrize("batch", ["4", "8:4:16", "0:1:2", "1:2:x"])
def test_a_batch_that_is_no_profile_is_refused(tmp_path: Path, batch: str) -> None:
    arguments = [str(tmp_path), "--out", str(tmp_path / "out"), "--batch", batch]
    result = CliRunner().invoke(build_engines, arguments)
    assert isinstance(result.exception, UserError) and "batch" in str(result.exception)


def test_compute_capabilities_without_plans_are_refused(tmp_path: Path) -> None:
    arguments = [str(tmp_path), "--out", str(tmp_path / "out"), "--compute-capability", "sm89"]
    result = CliRunner().invoke(build_engines, arguments)
    assert isinstance(result.exception, UserError) and "`target=" in str(result.exception)


def test_the_command_says_what_was_reused_and_where_the_log_is(
    mini: Path, mini_bundle: Bundle, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(mini_bundle.path, tmp_path / "out"))
    change(mini / "scheduler" / "scheduler_config.json", use_quantum_sigmas=True)
    result = CliRunner().invoke(build_engines, [str(mini), "--out", str(out)])
    assert result.exit_code == 0, result.exception
    assert "denoiser: reused" in result.output and "peak memory" in result.output
    assert f"{out}.log" in result.output
    remark = "the setting use_quantum_sigmas is not known to diffusers"
    assert remark in result.output and remark in Path(f"{out}.log").read_text()


@pytest.mark.parametrize("sizes", ["256", "256:", "512:256", "256:256", "0:64", "a:b"])
def test_sizes_that_are_no_range_are_refused(tmp_path: Path, sizes: str) -> None:
    arguments = [str(tmp_path), "--out", str(tmp_path / "out"), "--sizes", sizes]
    with pytest.raises(UserError, match=r"sizes.* must be "):
        build_engines.main(arguments, standalone_mode=False)
