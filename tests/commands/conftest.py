"""What tests of several commands need."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from synfer_rt.commands.cli import main


@pytest.fixture
def sample(tiny_bundle_path, tmp_path):
    def invoke(*options, engines=tiny_bundle_path, out=tmp_path / "out"):
        arguments = ["sample", "--bundle", str(engines), "--out", str(out), "--threads", "1"]
        arguments += ["--backend", "onnxruntime-cpu"]
        return CliRunner().invoke(main, [*arguments, *options])

    return invoke
