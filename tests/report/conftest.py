"""Runs for reports: written by the real pipeline, with engines that return at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synfer_rt.bench.host_side import InstantEngines
from synfer_rt.bundle import Bundle
from synfer_rt.data.writers import open_output
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_settings import make_run
from tests.report.pages import MARKUP


@pytest.fixture(scope="session")
def instant(tiny_bundle: Bundle) -> InstantEngines:
    return InstantEngines(tiny_bundle)


@pytest.fixture(scope="session")
def runs(instant: InstantEngines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `faces`, and with `marked`, whose name and prompts are harmless markup."""
    folder = tmp_path_factory.mktemp("reports")
    write(instant, folder / "faces", count=60)
    write(instant, folder / MARKUP, count=8, prompt=f"a photo of {MARKUP} </script> & a 'face'")
    return folder


def write(engines: InstantEngines, out: Path, format: str = "imagefolder", **settings: Any) -> Path:
    run = make_run(engines.bundle, **settings)
    execute(run, engines, open_output(out, run.settings(format), resume=False), 16)
    return out
