"""The measurement of reports writes real ones."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from synfer_rt.bench import report_page
from synfer_rt.bench.host_side import InstantEngines
from synfer_rt.bundle import Bundle
from synfer_rt.data.writers import open_output
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_settings import make_run


def test_size_and_time_of_a_report_are_printed(tiny_bundle: Bundle, tmp_path: Path, monkeypatch):
    engines = InstantEngines(tiny_bundle)
    run = make_run(tiny_bundle, count=8)
    execute(run, engines, open_output(tmp_path / "a", run.settings("parquet"), resume=False), 8)
    monkeypatch.setattr(report_page, "opening", lambda page: None)
    arguments = ["--run", str(tmp_path / "a"), "--embed", "0", "--embed", "9"]
    result = CliRunner().invoke(report_page.main, arguments, catch_exceptions=False)
    sizes = re.findall(r"8 images, ([\d.]+) MB, written in [\d.]+ s; ", result.output)
    assert len(sizes) == 2 and float(sizes[0]) <= float(sizes[1])
    assert result.output.count("not opened") == 2
