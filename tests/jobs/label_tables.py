"""Tables of `label` that a test makes and reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from synfer_rt.commands.label import label
from synfer_rt.commands.notes import noting_logs
from synfer_rt.data.datasets import Dataset
from synfer_rt.data.label_table import Table
from synfer_rt.jobs.label import label_images
from synfer_rt.judging.acceptance import acceptance
from synfer_rt.judging.annotators import Annotators
from synfer_rt.label_lines import blank_line
from synfer_rt.records import Record


class Stop(Exception):
    pass


def blank(annotators: Annotators) -> Record:
    return blank_line(annotators.bundle, annotators.members, annotators.engines.backend)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(
    dataset: Dataset, annotators: Annotators, path: Path, batch: int = 4, resume: bool = False
) -> list[dict[str, Any]]:
    table = Table(path, {"images": dataset.digest}, blank(annotators), resume)
    label_images(dataset, annotators, table, acceptance(accept_rate=0.5), batch)
    return lines(path)


def labelled(bundle: Path, *arguments: object) -> Any:
    options = ["--bundle", bundle, "--backend", "onnxruntime-cpu", "--threads", 1]
    arguments = (*arguments, *options)
    with noting_logs():
        return CliRunner().invoke(label, list(map(str, arguments)), catch_exceptions=False)
