"""A run keeps nothing of an image that is written."""

from __future__ import annotations

import sys

import pytest

from synfer_rt.bench.host_side import InstantEngines
from synfer_rt.bench.memory import over_time, resident
from synfer_rt.bundle import Bundle
from synfer_rt.data.writers import FORMATS
from synfer_rt.jobs.sample_settings import make_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's count of memory")
MEGABYTE = 1_000_000


def test_what_is_kept_shows() -> None:
    before = resident()
    kept = b"\1" * (30 * MEGABYTE)
    assert 25 * MEGABYTE < resident() - before < 60 * MEGABYTE
    assert len(kept) == 30 * MEGABYTE


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_memory_stays_level(tiny_bundle: Bundle, format: str) -> None:
    engines = InstantEngines(tiny_bundle)
    over_time(make_run(tiny_bundle, count=1024), engines, format, 128, 1)  # warms up
    half, whole = over_time(make_run(tiny_bundle, count=8192), engines, format, 128, 2)
    pixels = 32 * 32 * 3 * 4096  # of the second half's images
    assert whole - half < pixels / 4
