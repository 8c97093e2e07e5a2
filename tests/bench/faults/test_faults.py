"""The harness of faults: it kills real processes, and sees what they would have cost."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from synfer_rt.bench.faults.__main__ import main
from synfer_rt.bench.faults.injection import DRIVERS, FAULTS
from synfer_rt.bench.faults.page import page
from synfer_rt.bench.faults.scenes import Disk, Driver, FaultKind, ImpossibleError, Scene
from synfer_rt.bench.faults.trials import Row, Trials, measure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sends SIGKILL, mounts tmpfs")
KINDS = {kind.name: kind for kind in FAULTS}


def test_two_kills_cost_nothing_and_are_on_the_page(tiny_bundle_path: Path, tmp_path: Path) -> None:
    words = ["--bundle", str(tiny_bundle_path), "--kills", "2", "--count", "60"]
    words += ["--format", "webdataset", "--driver", "one process", "--fault", "SIGKILL"]
    out = tmp_path / "faults.md"
    done = CliRunner().invoke(main, [*words, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "SIGKILL, webdataset, one process: 2 times, as if nothing had happened" in done.output
    result = json.loads(out.with_suffix(".json").read_text())
    assert page(result) == out.read_text()
    assert [row["fault"] for row in result["rows"]] == ["none", "SIGKILL"]
    assert "**2 processes were killed. In all 2 rows nothing was lost" in out.read_text()
    assert "faults --kills 2 --count 60 --format webdataset" in out.read_text()


@pytest.fixture(scope="module")
def trials(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    words = ["--bundle", str(tiny_bundle_path), "--count", "24", "--shard-size", "8"]
    words += ["--backend", "onnxruntime-cpu", "--threads", "1"]
    made = Trials(tmp_path_factory.mktemp("trials"), words, "webdataset", DRIVERS[0], Disk(), 1)
    assert made.undisturbed().sound
    return made


def test_what_a_fault_costs_is_in_its_row(trials: Trials) -> None:
    def lose(scene: Scene) -> int:
        KINDS["file cut short"].disturb(scene)
        scene.driver = Driver("nobody", (), ())  # who would make it again
        return 1

    row = trials.row(FaultKind("loss", "", lose))
    assert row.lost and row.differing and row.faults and not row.sound
    assert row.problems == ["all processes have ended, and the run is not finished"]


def test_a_file_that_is_cut_short_is_made_again(trials: Trials) -> None:
    row = trials.row(KINDS["file cut short"])
    assert row.sound and row.times == 1 and row.seconds > 0


def test_a_process_that_does_not_end_as_it_should_is_a_problem(
    trials: Trials, tmp_path: Path
) -> None:
    scene = Scene(tmp_path / "scene", ["--count", "none"], DRIVERS[0], Disk(), random.Random(0))
    with scene.started() as (process,):
        assert scene.ended(process, 0) == 2
    assert "exit code 2" in scene.problems[0] and "--count" in scene.problems[0]


def test_unsound_rows_are_named_on_the_page() -> None:
    about = {
        "cpu": "A", "cores": 2, "gpus": [], "ram_bytes": None, "date": "2026", "system": "L",
        "python": "3", "versions": {},
    }  # fmt: skip
    rows = [Row("SIGKILL", "parquet", "one process", 5, seconds=1.0)]
    rows.append(Row("disk full", "parquet", "one process", 1, 3, 0, 70, ["x: it is missing"]))
    settings = {"command": "c", "bundle": "b", "backend": "cpu", "options": "--count 3"}
    text = page(
        {
            "machine": about,
            "settings": settings,
            "rows": [vars(row) for row in rows],
            "left_out": {"not writable": "no chattr"},
        }
    )
    assert "**5 processes were killed. 1 of the 2 rows are not as they should be.**" in text
    assert "- **disk full, parquet, one process**: x: it is missing" in text
    assert "- Left out: not writable; no chattr." in text


def test_the_page_of_results_shows_its_numbers() -> None:
    shown = Path(__file__).resolve().parents[3] / "docs" / "results" / "faults.md"
    result = json.loads(shown.with_suffix(".json").read_text())
    assert page(result) == shown.read_text()
    rows = [Row(**row) for row in result["rows"]]
    assert sum(row.times for row in rows if row.fault == "SIGKILL") >= 100
    assert all(row.sound and row.times for row in rows)
    done = {(row.fault, row.driver) for row in rows}
    assert done >= {(fault, driver.name) for driver in DRIVERS for fault in driver.faults}


def test_a_driver_that_this_machine_cannot_run_is_left_out() -> None:
    @contextmanager
    def nowhere() -> Iterator[Disk]:
        raise ImpossibleError("the package x is not installed")
        yield

    driver = Driver("far away", (("--resume",),), ("SIGKILL",), place=nowhere)
    made = measure([], ["parquet"], [driver], FAULTS, 1, 0, print)
    assert made == ([], {"far away": "the package x is not installed"})


def test_each_fault_is_done_to_a_driver() -> None:
    names = [name for driver in DRIVERS for name in driver.faults]
    assert set(names) == set(KINDS) and len(KINDS) == len(FAULTS)
    for driver in DRIVERS:
        assert all(set(driver.formats) & set(KINDS[name].formats) for name in driver.faults)


@pytest.mark.slow
@pytest.mark.parametrize("driver", DRIVERS[3:], ids=lambda driver: driver.name)
def test_ray_and_stores_lose_nothing(tiny_bundle_path: Path, driver: Driver) -> None:
    words = ["--bundle", str(tiny_bundle_path), "--count", "60", "--shard-size", "5"]
    words += ["--batch", "1", "--steps", "60", "--backend", "onnxruntime-cpu", "--threads", "1"]
    kinds = [kind for kind in FAULTS if kind.name != "store away for 60 s"]
    rows, left_out = measure(words, ["webdataset"], [driver], kinds, 2, 1, print)
    if left_out:
        pytest.skip(str(left_out))
    assert len(rows) >= 3
    assert all(row.sound and row.times for row in rows), rows


@pytest.mark.slow
@pytest.mark.parametrize("name", DRIVERS[0].faults[1:])
def test_other_faults_cost_nothing(trials: Trials, name: str) -> None:
    try:
        row = trials.row(KINDS[name])
    except ImpossibleError as error:
        pytest.skip(str(error))
    assert row.sound and row.times
