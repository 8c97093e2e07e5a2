"""Jobs on a thread of their own."""

from __future__ import annotations

import threading
import time

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


def test_jobs_wait_behind_the_one_under_way_where_there_is_room():
    done: list[int] = []
    go = threading.Event()
    with Background("test", waiting=2) as background:
        background.start(lambda: (go.wait(5), done.append(0)))
        background.start(done.append, 1)
        background.start(done.append, 2)
        assert not done
        threading.Timer(0.05, go.set).start()
        background.start(done.append, 3)  # there is room when the first is done
        assert done[:1] == [0]
    assert done == [0, 1, 2, 3]


def test_no_job_that_waits_begins_after_one_that_failed():
    done: list[int] = []
    go = threading.Event()
    with Background("test", waiting=2) as background:
        background.start(lambda: (go.wait(5), 1 // 0))
        background.start(done.append, 1)
        background.start(done.append, 2)
        go.set()
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                background.wait()
    assert not done


def test_jobs_that_wait_end_before_an_interruption_goes_on():
    done: list[int] = []
    go = threading.Event()
    with pytest.raises(KeyboardInterrupt), Background("test", waiting=1) as background:
        background.start(lambda: (go.wait(5), done.append(0)))
        background.start(done.append, 1)
        threading.Timer(0.05, go.set).start()
        raise KeyboardInterrupt
    assert done == [0, 1]


def test_a_job_under_way_ends_before_an_interruption_goes_on():
    done: list[int] = []
    go = threading.Event()
    with pytest.raises(KeyboardInterrupt), Background("test") as background:
        background.start(lambda: (go.wait(5), done.append(0)))
        threading.Timer(0.05, go.set).start()
        raise KeyboardInterrupt
    assert done == [0]


def test_an_interruption_while_the_thread_starts_leaves_no_job_under_way(
    monkeypatch: pytest.MonkeyPatch,
):
    started, ended = threading.Event(), threading.Event()
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        time.sleep(0.05)
        raise KeyboardInterrupt

    def job() -> None:
        started.set()
        time.sleep(0.2)
        ended.set()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Background("test") as background:
        background.start(job)
    assert started.is_set() == ended.is_set()
