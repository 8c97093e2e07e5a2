"""A student beside its teacher: what judges read in the samples of both, from the same requests.

The gates say what a student must reach to stand in for its teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from reference import captions, classifiers
from reference.evaluation import action_units, attributes, statistics
from reference.evaluation.diversity import Held, pooled_features
from reference.evaluation.expression import fer_reading
from reference.evaluation.pages import mean_spread, plus_minus
from reference.evaluation.readers import Readers
from reference.tasks import CLASSES, chosen
from synfer_rt.evaluation.diversity import within_class_distance
from synfer_rt.sampling.requests import Request
from synfer_rt.vocabulary import facs

JUDGE_POINTS = 0.01
"""Share by which the judge may read the requested class less often than in the teacher's."""
FRECHET = 0.004
"""By how much the Fréchet distance to held-out renders may be above the teacher's."""
DIVERSITY = 0.95
"""Least pairwise diversity, as a part of the teacher's."""
SIDES = 0.9
"""Least correlation of requested and read left minus right."""

Value = tuple[float, float]
"""A value with its half-width or, of Fréchet distances, its standard deviation."""


@dataclass(frozen=True)
class Row:
    """A measure of both, the difference, and whether the student passes the gate, if there is one.

    `kind` decides how the numbers are written. The `difference` of a "ratio" is the student's part
    of the teacher's value.
    """

    measure: str
    kind: Literal["share", "number", "fréchet", "ratio"]
    teacher: Value
    student: Value
    difference: Value
    gate: str = ""
    holds: bool | None = None

    def cells(self) -> list[str]:
        """The row of a table; `COLUMNS` are its columns."""
        holds = {None: "", True: "yes", False: "**no**"}[self.holds]
        return [self.measure, *self._numbers(), self.gate, holds]

    def _numbers(self) -> list[str]:
        first, second, change = self.teacher, self.student, self.difference
        if self.kind == "fréchet":
            return [mean_spread(first, 4), mean_spread(second, 4), mean_spread(change, 4, "+")]
        scale, digits = (100, 1) if self.kind == "share" else (1, 3)
        sign = "" if self.kind == "ratio" or change[0] < 0 else "+"
        times = "x " if self.kind == "ratio" else ""
        both = [plus_minus(value, scale, digits) for value in (first, second)]
        return [*both, f"{times}{sign}{plus_minus(change, scale, digits)}"]


COLUMNS = ("", "teacher", "student", "difference", "gate", "holds")


@dataclass(frozen=True)
class Read:
    """What judges read in images uint8 [n, S, S, 3].

    `rights` has for each judge bool [n], or fewer where it does not know all classes: whether it
    reads the requested class. `features` are float64 [n, d] of the judge, `agreement` float [n] the
    share of units as requested, and `bands` int64 [n, 3] as in `captions.bands`.
    """

    images: np.ndarray
    rights: dict[str, np.ndarray]
    features: np.ndarray
    agreement: np.ndarray
    bands: np.ndarray


def classes_of(requests: Sequence[Request]) -> np.ndarray:
    """The requested classes, indices int64 [n] into CLASSES."""
    return np.array([CLASSES.index(request.label) for request in requests])


def read(images: np.ndarray, requests: Sequence[Request], readers: Readers) -> Read:
    """What `readers` read in the images of these requests."""
    classes = classes_of(requests)
    aus = np.stack([facs.au_vector(request.aus) for request in requests])
    rights = {"judge": classifiers.predict(readers.judge, images).argmax(1) == classes}
    if readers.fer is not None:
        said, truth, _ = fer_reading(readers.fer, images, classes)
        rights["fer"] = said == truth
    return Read(
        images,
        rights,
        pooled_features(readers.judge, images),
        action_units.au_agreement(aus, classifiers.predict(readers.aus, images)),
        chosen(classifiers.predict(readers.attributes, images), captions.BANDS),
    )


def not_below(difference: Value) -> tuple[str, bool]:
    """The gate that the interval of a difference does not lie below 0, and whether it holds."""
    return "not below", difference[0] >= -difference[1]


def expression(teacher: Read, student: Read) -> list[Row]:
    """How often each judge reads the requested class."""
    rows = []
    for judge, before in teacher.rights.items():
        after = student.rights[judge]
        one, other = statistics.share(before), statistics.share(after)
        gain = statistics.gain(after, before)
        if judge == "judge":
            gate = f"at least -{100 * JUDGE_POINTS:g}", gain[0] >= -JUDGE_POINTS
        else:
            least = one[0] - one[1]
            gate = f"at least {100 * least:.1f}, the teacher's interval", other[0] >= least
        rows.append(Row(judge, "share", one, other, gain, *gate))
    one, other = (statistics.mean(read.agreement) for read in (teacher, student))
    change = statistics.mean(student.agreement - teacher.agreement)
    return [*rows, Row("AU agreement", "share", one, other, change)]


def prompt(teacher: Read, student: Read, requests: Sequence[Request]) -> list[Row]:
    """How often age, gender and ancestry are as the prompt says."""
    asked, rows = attributes.described(request.prompt for request in requests), []
    for i, name in enumerate(captions.BANDS):
        known = asked[:, i] >= 0
        before, after = (
            (side.bands[:, i] == asked[:, i])[known] for side in (teacher, student)
        )  # fmt: skip
        change = statistics.gain(after, before)
        shares = statistics.share(before), statistics.share(after)
        rows.append(Row(name, "share", *shares, change, *not_below(change)))
    return rows


def variety(teacher: Read, student: Read, classes: np.ndarray, real: Held) -> list[Row]:
    """Fréchet distance to held-out renders, pairwise diversity, and the distance of the images.

    Both sides are compared with the same renders in every split.
    """
    near, far = (real.frechet(side.features[: real.size]) for side in (teacher, student))
    change = statistics.spread(far - near)
    gate = f"at most +{FRECHET:g}", change[0] <= FRECHET
    spreads = statistics.spread(near), statistics.spread(far)

    def of(features: np.ndarray, rows: np.ndarray) -> float:
        return within_class_distance(features[rows], classes[rows])

    def ratio(rows: np.ndarray) -> float:
        return of(student.features, rows) / of(teacher.features, rows)

    count = len(classes)
    one, other = (_with_half_width(partial(of, s.features), count) for s in (teacher, student))
    part = _with_half_width(ratio, count)
    return [
        Row("Fréchet distance to renders", "fréchet", *spreads, change, *gate),
        Row(
            "pairwise diversity", "ratio", one, other, part,
            f"at least {DIVERSITY:g} of the teacher's", part[0] >= DIVERSITY,
        ),
    ]  # fmt: skip


def units(teacher: np.ndarray, student: np.ndarray, names: Sequence[str]) -> list[Row]:
    """Rank correlations of the requested and the read intensity, of readings as in `sweeps`.

    Both are [units, faces, strengths, 41].
    """
    goal, rows = action_units.GOALS["main"], []
    for i, name in enumerate(names):

        def of(read: np.ndarray, faces: np.ndarray, i: int = i, name: str = name) -> float:
            return action_units.sweep_correlations(read[i : i + 1, faces], [name])[name]

        values = _paired(of, teacher, student, teacher.shape[1])
        rows.append(Row(name, "number", *values, f"at least {goal:g}", values[1][0] >= goal))
    return rows


def sides(teacher: np.ndarray, student: np.ndarray) -> list[Row]:
    """Correlations of requested and read left minus right, of readings as in `sides`.

    Both are [units, faces, sides, 41].
    """
    rows = []
    for name in action_units.ONE_SIDED:

        def of(read: np.ndarray, faces: np.ndarray, name: str = name) -> float:
            return action_units.asymmetry(read[:, faces])[name]["correlation"]

        values = _paired(of, teacher, student, teacher.shape[1])
        gate = f"at least {SIDES:g}", values[1][0] >= SIDES
        rows.append(Row(f"{name}, left - right", "number", *values, *gate))
    return rows


def _paired(
    of: Callable[[np.ndarray, np.ndarray], float],
    teacher: np.ndarray,
    student: np.ndarray,
    count: int,
) -> tuple[Value, Value, Value]:
    """`of` both readings and the difference, with half-widths over the `count` faces of both."""
    return (
        _with_half_width(partial(of, teacher), count),
        _with_half_width(partial(of, student), count),
        _with_half_width(lambda rows: of(student, rows) - of(teacher, rows), count),
    )


def _with_half_width(statistic: Callable[[np.ndarray], float], count: int) -> Value:
    return statistic(np.arange(count)), statistics.bootstrap(statistic, count)


def image_difference(teacher: Read, student: Read) -> Value:
    """Mean absolute difference of the images of the same requests, in levels of 255."""
    levels = np.abs(student.images.astype(np.int16) - teacher.images).mean((1, 2, 3))
    return statistics.mean(levels)
