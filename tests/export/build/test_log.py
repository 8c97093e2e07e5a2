"""The build log keeps what the exporters remark, and the console stays quiet."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

from synfer_rt.export.build.log import LOG, build_log


def test_remarks_and_warnings_go_to_the_log_and_nowhere_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.log"
    with build_log(file), build_log(file):
        LOG.info("denoiser: exporting")
        logging.getLogger("torch.onnx").warning("a remark")
        warnings.warn(" ".join(("a", "warning")), stacklevel=1)
    LOG.warning("afterwards")
    text = file.read_text()
    for message in ("denoiser: exporting", "a remark", "a warning"):
        assert text.count(message) == 1
    assert "afterwards" not in text
    assert "a remark" not in "".join(capfd.readouterr())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_what_a_full_disk_does_not_take_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    with build_log(Path("/dev/full")):
        LOG.info("denoiser: exporting")
        logging.getLogger("torch.onnx").warning("a remark")
    assert capfd.readouterr() == ("", "")
