"""The GPU's time of engine calls, by events of the driver."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from synfer_rt.bench.cuda_events import CudaEvents
from tests.bench.fake_driver import FakeDriver


def test_times_add_up_by_name():
    events = CudaEvents(FakeDriver(milliseconds=2.0))
    for name in ("denoiser", "denoiser", "decoder"):
        with events.around(name):
            pass
    found = events.seconds()
    assert found == {"denoiser": pytest.approx(0.004), "decoder": pytest.approx(0.002)}
    assert events.seconds() is None  # nothing since


@pytest.mark.parametrize("driver", [None, SimpleNamespace(), FakeDriver(has_context=False)])
def test_without_a_driver_that_answers_nothing_is_measured(driver: object):
    events = CudaEvents(driver)
    with events.around("denoiser"):
        done = True
    assert done and events.seconds() is None
