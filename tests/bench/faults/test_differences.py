"""What is lost, doubled or changed shows, in numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from synfer_rt.bench.faults.differences import Difference, difference, differing
from synfer_rt.data.writers import FORMATS, run_file
from tests.data.writers.small_run import SmallRun, finished


def test_the_bytes_that_differ_are_counted() -> None:
    assert differing(b"same", b"same") == 0
    assert differing(b"abcd", b"abXY") == 2
    assert differing(b"abcd", b"aXcdef") == 3
    assert differing(b"", b"abc") == 3


@pytest.fixture
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    for name in "one", "other":
        finished(SmallRun(), tmp_path / name / "faces", request.param, 10)
    return tmp_path / "one/faces", tmp_path / "other/faces"


@pytest.mark.parametrize("pair", FORMATS, indirect=True)
def test_equal_runs_do_not_differ(pair: tuple[Path, Path]) -> None:
    assert not difference(*pair)
    (run_file.folder(pair[0]) / "left.partial").touch()
    found = difference(*pair)
    assert found and found.faults[-1] == "left.partial: only the disturbed run has it"


@pytest.mark.parametrize("pair", ["webdataset"], indirect=True)
def test_a_shard_less_and_an_image_twice(pair: tuple[Path, Path]) -> None:
    out, whole = pair
    size = (out / "000001.tar").stat().st_size
    (out / "000001.tar").unlink()
    found = difference(out, whole)
    assert (found.lost, found.doubled, found.differing) == (4, 0, size)
    assert any("4 of 10 images are missing" in fault for fault in found.faults)
    (out / "000001.tar").write_bytes((out / "000000.tar").read_bytes())
    found = difference(out, whole)
    assert (found.lost, found.doubled) == (4, 4) and found.differing and found.faults


@pytest.mark.parametrize("pair", ["imagefolder"], indirect=True)
def test_a_byte_less(pair: tuple[Path, Path]) -> None:
    out, whole = pair
    image = next(out.glob("*/*.png"))
    image.write_bytes(image.read_bytes()[:-1])
    found = difference(out, whole)
    assert (found.lost, found.doubled, found.differing) == (0, 0, 1)
    assert len(found.faults) == 1
    assert bool(Difference(0, 0, 1, ())) and not Difference(0, 0, 0, ())
