"""Runs of one driver in one format that each fault is done to, and what it costs them."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from synfer_rt.bench.faults.differences import difference
from synfer_rt.bench.faults.injection import DRIVERS, KILLED
from synfer_rt.bench.faults.scenes import Disk, Driver, FaultKind, ImpossibleError, Scene, Usual
from synfer_rt.errors import UserError

NONE = "none"
_TRIES = 3
"""How often a fault is tried that comes too late for a run."""


@dataclass
class Row:
    """What a fault did to the runs of one driver in one format, of which it met so many `times`."""

    fault: str
    format: str
    driver: str
    times: int = 0
    lost: int = 0
    doubled: int = 0
    differing: int = 0
    faults: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether the runs came out as if nothing had happened."""
        return not (self.lost or self.doubled or self.differing or self.faults or self.problems)


class Trials:
    """The runs of one driver in one format at its place, each in a folder of its own in `folder`.

    `words` are options of `sample`, and `undisturbed` is the folder of the run of one process.
    """

    def __init__(
        self,
        folder: Path,
        words: Sequence[str],
        format: str,
        driver: Driver,
        place: Disk,
        seed: int,
    ) -> None:
        self._folder, self._words, self._driver = folder, [*words, "--format", format], driver
        self._format, self._place, self._number = format, place, 0
        self._draw = random.Random(f"{seed} {format} {driver.name}")
        self._undisturbed, self._usual = folder / "undisturbed", Usual(0, 0)

    def undisturbed(self) -> Row:
        """Make the run, which nothing disturbs, by one process here, and by any other driver."""
        row = Row(NONE, self._format, self._driver.name, 1)
        one = replace(DRIVERS[0], settings=self._driver.settings)
        here = Scene(self._undisturbed, self._words, one, Disk(), self._draw)
        with _timed(row), here as scene:
            self._usual = scene.complete()
            row.problems += scene.problems
        if (self._driver.processes, self._driver.place) != (one.processes, one.place):
            with _timed(row), self._scene() as scene:
                self._usual = self._complete(scene, row)
        return row

    def row(self, fault: FaultKind) -> Row:
        """Do a fault to a run, and complete it."""
        row = Row(fault.name, self._format, self._driver.name)
        for _ in range(_TRIES):
            with _timed(row), self._scene() as scene:
                row.times += fault.disturb(scene)
                self._complete(scene, row)
            if row.times:
                break
        return row

    def kills(self, wanted: int) -> Row:
        """Kill so many processes, as many as it takes of a run, and complete each run."""
        row = Row(KILLED.name, self._format, self._driver.name)
        for _ in range(10 * wanted + 10):
            if row.times >= wanted:
                return row
            with _timed(row), self._scene() as scene:
                met = row.times
                while row.times < wanted and not scene.finished():
                    row.times += KILLED.disturb(scene)
                if row.times > met:
                    self._complete(scene, row)
        raise UserError(
            "The runs end before their processes can be killed; make them longer with `count`."
        )

    def _scene(self) -> Scene:
        self._number += 1
        folder = self._folder / str(self._number)
        how = self._place, self._draw, self._undisturbed, self._usual
        scene = Scene(folder, self._words, self._driver, *how)
        scene.undo.callback(shutil.rmtree, folder, ignore_errors=True)
        return scene

    def _complete(self, scene: Scene, row: Row) -> Usual:
        usual = scene.complete()
        row.problems += scene.problems
        try:
            found = difference(scene.out, self._undisturbed / "faces")
        except UserError as error:
            row.problems.append(str(error))
            return usual
        row.lost += found.lost
        row.doubled += found.doubled
        row.differing += found.differing
        row.faults += found.faults
        return usual


@contextmanager
def _timed(row: Row) -> Generator[None]:
    """Add the time of the block to a row."""
    started = time.perf_counter()
    yield
    row.seconds += time.perf_counter() - started


def measure(
    words: Sequence[str],
    formats: Sequence[str],
    drivers: Sequence[Driver],
    faults: Sequence[FaultKind],
    kills: int,
    seed: int,
    tell: Callable[[Row], None],
) -> tuple[list[Row], dict[str, str]]:
    """The rows of all faults, and those left out with the reasons.

    `words` are options of `sample`. The `kills` are divided among formats and drivers.
    """
    rows, left_out = list[Row](), dict[str, str]()
    pairs = [(format, driver) for format in formats for driver in drivers]
    pairs = [(format, driver) for format, driver in pairs if format in driver.formats]
    for number, (format, driver) in enumerate(pairs):
        share = kills // len(pairs) + (number < kills % len(pairs))
        with ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(prefix="synfer-rt-faults-")
            try:
                place = stack.enter_context(driver.place())
            except ImpossibleError as error:
                left_out[driver.name] = str(error)
                continue
            where = Path(stack.enter_context(folder))
            trials = Trials(where, words, format, driver, place, seed)
            for row in _rows(trials, format, driver, faults, share, left_out):
                tell(row)
                rows.append(row)
    return rows, left_out


def _rows(
    trials: Trials,
    format: str,
    driver: Driver,
    faults: Sequence[FaultKind],
    kills: int,
    left_out: dict[str, str],
) -> Iterator[Row]:
    yield trials.undisturbed()
    for fault in faults:
        if fault.name not in driver.faults or format not in fault.formats:
            continue
        if fault is KILLED:
            yield trials.kills(kills)
        elif fault.name not in left_out:
            try:
                yield trials.row(fault)
            except ImpossibleError as error:
                left_out[fault.name] = str(error)
