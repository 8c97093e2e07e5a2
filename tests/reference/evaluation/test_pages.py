"""The parts of a page of results."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

from reference.evaluation import pages


def test_the_machine_is_the_benchmarks():
    from synfer_rt.bench.machine import describe

    about = describe(1, ())
    assert pages.machine() == f"{about['cpu']}, {about['cores']} cores"
