"""Which samples a run accepts, and when it has enough."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.data.writers import FORMATS
from synfer_rt.errors import UserError
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_run import Run
from synfer_rt.judging.acceptance import RunningQuantile
from synfer_rt.judging.voting import Verdict
from synfer_rt.sampling.requests import make_requests
from tests import tiny_bundle as tiny
from tests.jobs.runs import output, records, stop_after


@pytest.fixture(scope="module")
def voting(voting_bundle):
    return LoadedEngines(voting_bundle, "onnxruntime-cpu", threads=1)


def voting_run(bundle, count=40, **options):
    return Run(bundle, make_requests(bundle, seed=5), count, "dpmpp-2m", 2, 0.9, **options)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "options", [{"accept_rate": 0.4}, {"quota": 2}, {"quota": 2, "threshold": 0.3}], ids=str
)
def test_what_is_accepted_and_asked_for_is_the_same_after_an_interruption(
    voting_bundle, voting, tmp_path, format, options
):
    run = voting_run(voting_bundle, **options)
    execute(run, voting, output(run, tmp_path / "whole", format=format), 64)
    writer = output(run, tmp_path / "cut", format=format)
    with pytest.raises(KeyboardInterrupt):
        execute(run, voting, writer, 5, stop_after(11))
    assert 0 < writer.done < 16
    execute(run, voting, output(run, tmp_path / "cut", resume=True, format=format), 7)
    keys = ("index", "requested_label", "label", "rectified", "accepted")
    whole, cut = ([[r[k] for k in keys] for r in records(tmp_path / x)] for x in ("whole", "cut"))
    assert whole == cut
    assert {accepted for *_, accepted in whole} == {True, False}


def test_an_accept_rate_takes_the_most_confident_share_of_each_label(
    voting_bundle, voting, tmp_path
):
    run = voting_run(voting_bundle, 60, accept_rate=0.5)
    summary = execute(run, voting, output(run, tmp_path / "out"), 64)
    accept = RunningQuantile(0.5)
    for record in records(tmp_path / "out"):
        verdict = Verdict(record["label"], record["probabilities"], record["rectified"])
        assert record["accepted"] == accept(verdict)
    assert 25 <= sum(summary.accepted.values()) <= 40


def accepted(made):
    return Counter(record["label"] for record in made if record["accepted"])


def test_a_run_with_a_quota_ends_when_each_class_has_it(run, engines, tmp_path):
    run = replace(run, count=400, quota=2, accept_rate=0.5)
    summary = execute(run, engines, output(run, tmp_path / "out"), 64)
    made = records(tmp_path / "out")
    assert accepted(made) == dict.fromkeys(run.requests.labels, 2) and summary.missing == {}
    assert made[-1]["accepted"] and 16 < len(made) < 400


def test_a_run_with_a_quota_uses_up_its_budget_for_what_is_missing(voting_bundle, voting, tmp_path):
    run = voting_run(voting_bundle, 400, quota=2, accept_rate=1.0)
    writer = output(run, tmp_path / "out")
    summary = execute(run, voting, writer, 64)
    made = records(tmp_path / "out")
    counts = accepted(made)
    missing = {label: 2 - counts[label] for label in run.requests.labels if counts[label] < 2}
    assert missing and summary.missing == missing
    assert len(made) == writer.count == 400


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_that_ended_early_is_whole(run, engines, tmp_path, format):
    small = replace(run, requests=make_requests(run.bundle, labels=["happy"]), count=200, quota=1)
    small = replace(small, threshold=0.0)
    summary = execute(small, engines, output(small, tmp_path / "out", format=format), 8)
    assert (summary.images, summary.missing) == (1, {})
    again = output(small, tmp_path / "out", resume=True, format=format)
    assert again.done == again.count == 1
    assert [r["index"] for r in records(tmp_path / "out")] == [0]


def test_nobody_can_accept_in_a_bundle_without_annotators(tmp_path):
    bundle = tiny.build(tmp_path / "bare", with_classifier=False)
    selections: list[dict[str, Any]] = [{"accept_rate": 0.5}, {"threshold": 0.5}, {"quota": 3}]
    for selection in selections:
        with pytest.raises(UserError, match="nothing can be accepted"):
            voting_run(bundle, **selection).check()
