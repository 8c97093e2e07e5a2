"""Sections run in processes of their own, and end alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from synfer_rt.bench import sections
from synfer_rt.errors import UserError


def counting(most: int, then: str = "") -> Iterator[Any]:
    yield from range(most)
    if then == "exit":
        os._exit(9)
    if then == "raise":
        raise ZeroDivisionError("no way.\nMore lines")
    if then == "refuse":
        raise UserError("`batch` is odd; give an even one.")
    if then == "hang":
        time.sleep(600)


def pid() -> Iterator[int]:
    print("noise of a runtime")
    yield os.getpid()


def test_a_section_yields_what_it_finds_from_another_process():
    found = sections.run(counting, 3)
    assert (found.rows, found.problem, found.stopped) == ([0, 1, 2], None, False)
    assert found.seconds > 0
    assert sections.run(pid).rows != [os.getpid()]


def test_a_killed_process_keeps_its_rows():
    found = sections.run(counting, 2, "exit")
    assert found.rows == [0, 1]
    assert found.problem == (
        "its process was killed (exit code 9), most likely because memory ran out; leave that size "
        "out of `batch`"
    )


def test_an_exception_is_told_in_one_line():
    found = sections.run(counting, 1, "raise")
    assert (found.rows, found.problem) == ([0], "ZeroDivisionError: no way")


def test_a_refusal_is_told_as_it_is():
    assert sections.run(counting, 0, "refuse").problem == "`batch` is odd; give an even one"


def test_a_section_whose_time_is_up_is_stopped_and_keeps_its_rows():
    started = time.monotonic()
    found = sections.run(counting, 2, "hang", seconds=6)
    assert found.stopped and found.problem == "it was stopped after 6 s"
    assert found.rows == [0, 1]
    assert time.monotonic() - started < 60


def test_what_a_section_prints_is_no_output_of_the_command():
    code = (
        "from tests.bench.test_sections import pid\n"
        "from synfer_rt.bench import sections\n"
        "if __name__ == '__main__': print(len(sections.run(pid).rows))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n" and "noise of a runtime" in done.stderr
