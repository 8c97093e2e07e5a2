"""How the time of a system is told."""

from __future__ import annotations

import time

from synfer_rt.bench.systems import Stopwatch


def test_a_stopwatch_adds_up_what_a_stage_took():
    watch = Stopwatch()
    for _ in range(2):
        with watch.stage("denoise"):
            time.sleep(0.02)
    assert 0.04 <= watch.stages["denoise"] < 1
