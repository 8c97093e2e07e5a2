"""A piece is made while the next is prepared, and never more than that."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle
from synfer_rt.data.writers import open_output, read
from synfer_rt.errors import UserError
from synfer_rt.jobs import pieces
from synfer_rt.jobs.sample import execute, make_samples
from synfer_rt.jobs.sample_run import Run
from synfer_rt.sampling.preparation import Prepared, prepare
from synfer_rt.sampling.requests import Request, make_requests
from synfer_rt.sampling.sampler import Computed, Sampler
from synfer_rt.sampling.samples import Sample


@pytest.fixture
def run(tiny_bundle: Bundle) -> Run:
    return Run(tiny_bundle, make_requests(tiny_bundle, seed=5), 12, "ddim", 2, 0.9)


def first_index(requests: Sequence[Request]) -> int:
    return requests[0].index


def test_the_next_piece_is_prepared_while_one_is_made(
    run: Run, engines: LoadedEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = {first: threading.Event() for first in (0, 4, 8, 12)}
    make = Sampler.compute

    def preparing(requests: Sequence[Request], *others: Any) -> Prepared:
        piece = prepare(requests, *others)
        prepared[first_index(requests)].set()
        return piece

    def making(self: Sampler, piece: Prepared, *others: Any) -> Any:
        index = first_index(piece.requests)
        assert index == 8 or prepared[index + 4].wait(10)
        assert index != 0 or not prepared[8].wait(0.1)  # only one piece ahead
        return make(self, piece, *others)

    monkeypatch.setattr(pieces, "prepare", preparing)
    monkeypatch.setattr(Sampler, "compute", making)
    samples = make_samples(run, engines, 4)
    assert [sample.request.index for sample in samples] == list(range(12))


@pytest.mark.parametrize("error", [UserError("Not this one."), MemoryError()])
def test_what_cannot_be_prepared_ends_the_run_after_the_pieces_before(
    run: Run,
    engines: LoadedEngines,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    error: Exception,
) -> None:
    def preparing(requests: Sequence[Request], *others: Any) -> Prepared:
        if first_index(requests) == 8:
            raise error
        return prepare(requests, *others)

    monkeypatch.setattr(pieces, "prepare", preparing)
    writer = open_output(tmp_path / "out", run.settings("imagefolder"), resume=False)
    with pytest.raises(type(error)):
        execute(run, engines, writer, 4)
    assert writer.done == 8
    monkeypatch.undo()
    again = open_output(tmp_path / "out", run.settings("imagefolder"), resume=True)
    execute(run, engines, again, 4)
    assert [record["index"] for record, _ in read(tmp_path / "out")] == list(range(12))


def test_a_piece_is_labelled_while_the_next_is_computed(
    run: Run, engines: LoadedEngines, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    computing = threading.Event()
    compute, label = Sampler.compute, Sampler.label

    def second(self: Sampler, piece: Prepared, *others: Any) -> Computed:
        if first_index(piece.requests) == 4:
            computing.set()
        return compute(self, piece, *others)

    def waiting(self: Sampler, computed: Computed) -> list[Sample]:
        assert computing.wait(10)
        return label(self, computed)

    monkeypatch.setattr(Sampler, "compute", second)
    monkeypatch.setattr(Sampler, "label", waiting)
    writer = open_output(tmp_path / "out", run.settings("imagefolder"), resume=False)
    assert execute(run, engines, writer, 4).images == 12
    assert [record["index"] for record, _ in read(tmp_path / "out")] == list(range(12))


def test_what_cannot_be_labelled_ends_the_run_after_the_pieces_before(
    run: Run, engines: LoadedEngines, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    label = Sampler.label

    def failing(self: Sampler, computed: Computed) -> list[Sample]:
        if first_index(computed.piece.requests) == 4:
            raise MemoryError
        return label(self, computed)

    monkeypatch.setattr(Sampler, "label", failing)
    writer = open_output(tmp_path / "out", run.settings("webdataset"), resume=False)
    with pytest.raises(MemoryError):
        execute(run, engines, writer, 4)
    assert writer.done == 4
    with pytest.raises(MemoryError):
        make_samples(run, engines, 4)


def test_rounds_of_quotas_are_prepared_when_they_are_known(
    voting_bundle: Bundle, tmp_path: Any
) -> None:
    engines = LoadedEngines(voting_bundle, "onnxruntime-cpu", threads=1)
    requests = make_requests(voting_bundle, seed=5, labels=["happy", "sad"])
    run = Run(voting_bundle, requests, 60, "ddim", 2, 0.9, quota=4)
    by_batch = [make_samples(run, engines, batch) for batch in (1, 3, 64)]
    labels = [[sample.request.label for sample in samples] for samples in by_batch]
    assert labels[0] == labels[1] == labels[2]
    assert labels[0][:8] == ["happy", "sad"] * 4
    assert make_samples(replace(run, count=3), engines, 64)[-1].request.index == 2
