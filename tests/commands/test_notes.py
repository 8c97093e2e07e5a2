"""What jobs and backends log while a command runs is said."""

from __future__ import annotations

import logging

import pytest

from synfer_rt.commands.notes import noting_logs


@pytest.mark.parametrize("room", ["jobs.sample", "backends.cuda_engine"])
def test_remarks_and_warnings_are_notes(room: str, capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger(f"synfer_rt.{room}")
    with noting_logs():
        log.info("it runs without CUDA graphs")
        log.warning("it is slow")
    log.info("no command runs")
    said = capsys.readouterr()
    assert said.out == "" and said.err == "it runs without CUDA graphs\nWarning: it is slow\n"
