"""Jobs on a thread of their own."""

from __future__ import annotations

import threading

import pytest

from synfer_rt.jobs.background import Background


def test_jobs_follow_each_other_in_order_beside_their_owner():
    done: list[int] = []
    go = threading.Event()
    with Background("test") as background:
        background.start(lambda: (go.wait(5), done.append(0)))
        assert not done
        go.set()
        for number in range(1, 5):
            background.start(done.append, number)
        background.wait()
        assert done == [0, 1, 2, 3, 4]


def test_no_job_begins_after_one_that_failed():
    done: list[int] = []
    with pytest.raises(ZeroDivisionError), Background("test") as background:
        background.start(lambda: 1 // 0)
        background.start(done.append, 1)
    assert not done


def test_a_job_under_way_ends_before_an_interruption_goes_on():
    done: list[int] = []
    go = threading.Event()
    with pytest.raises(KeyboardInterrupt), Background("test") as background:
        background.start(lambda: (go.wait(5), done.append(0)))
        threading.Timer(0.05, go.set).start()
        raise KeyboardInterrupt
    assert done == [0]
