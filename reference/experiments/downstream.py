"""What synthetic faces are worth as training data.

    python -m reference.experiments.downstream --renders DIR

A classifier is trained on real faces (here: rendered, of held-out identities), on as many synthetic
ones, on five times as many, and on both; each training sees the same number of images. The whole is
repeated with other people, other samples and another seed. The paper's accuracies on AffectNet are
67.23 with as many synthetic images and 69.84 with five times as many, against about 67.5 with real
ones (arXiv 2410.09865).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click
import numpy as np

from reference.evaluation import pages, statistics
from reference.evaluation.pages import plus_minus, table
from reference.experiments import setting as settings
from reference.experiments.sampling import Recipe, sample_set
from reference.experiments.setting import Setting
from reference.experiments.training import (
    TrainingSet,
    one_hot,
    over_repetitions,
    reading,
    real_faces,
    real_rows,
)

TIMES = 5


def synthetic(made: dict[str, np.ndarray]) -> TrainingSet:
    """Samples as training data: the vote's distribution where it replaced the label."""
    targets = one_hot(made["requested"])
    rectified = made["label"] != made["requested"]
    targets[rectified] = made["probabilities"][rectified]
    return TrainingSet(np.asarray(made["images"]), targets)


def arms(real: TrainingSet, made: TrainingSet) -> dict[str, TrainingSet]:
    """The training sets by name; `made` holds TIMES as many faces as `real`."""
    n = len(real)
    return {
        "renders": real,
        "synthetic, as many": made[:n],
        f"synthetic, {TIMES} times": made,
        f"renders and synthetic, {TIMES} times": real + made,
    }


def draw(report: Mapping[str, Mapping[str, Any]]) -> Any:
    """A figure of the mean accuracy of every arm, and of each repetition's."""
    figure, axes = pages.figure(7, 3.6)
    values = 100 * np.array([row["mean"] for row in report.values()])
    axes.bar(range(len(report)), values[:, 0], 0.6, yerr=pages.bars(values), capsize=4)
    for i, row in enumerate(report.values()):
        axes.plot([i] * len(row["accuracies"]), 100 * np.array(row["accuracies"]), "k.", ms=5)
    axes.set_xticks(range(len(report)), list(report), rotation=12)
    axes.set(ylabel="accuracy on held-out renders (%)", ylim=(0, 105))
    return figure


def rows(report: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The table of all arms."""
    return table(
        ["trained on", "images", "accuracy", "deviation", "gain", "ratio to renders"],
        [
            [
                name,
                str(row["images"]),
                plus_minus(row["mean"]),
                f"{100 * row['deviation']:.1f}",
                plus_minus(row["gain"]) if name != "renders" else "",
                plus_minus(row["ratio"], 1, 2) if name != "renders" else "",
            ]
            for name, row in report.items()
        ],
    )


@click.command()
@settings.options
@click.option("--real", "most", default=96, show_default=True, help="Real images, at most.")
@click.option("--repetitions", default=5, show_default=True, type=click.IntRange(min=2))
@click.option("--steps", default=120, show_default=True, help="Of 64 images, for every training.")
@click.option("--guidance", type=float, help="Strength of semantic guidance, form latent.")
def main(setting: Setting, most, repetitions, steps, guidance):
    """Accuracy on held-out real faces; each repetition has faces, samples and a seed of its own."""
    data = setting.data
    pool = real_rows(data, test=False)
    groups = statistics.parted(
        data.annotations["identity"][pool], repetitions, np.random.default_rng(0)
    )
    count = min(most, *map(len, groups))
    test = real_faces(data, real_rows(data, test=True))
    recipe = Recipe("defaults")
    if guidance:
        recipe = replace(recipe, form="latent", strength=guidance)
    images: dict[str, int] = {}
    accuracies: dict[str, list[float]] = {}
    for k, group in enumerate(groups):
        size = TIMES * count
        made = sample_set(setting.sampler, recipe, size, 101, setting.work, first=k * size)
        real = real_faces(data, pool[group[:count]])
        for name, faces in arms(real, synthetic(made)).items():
            read = reading(faces, test, k, steps, False, setting.work)
            images[name] = len(faces)
            accuracies.setdefault(name, []).append(float(np.mean(read == test.classes)))
    found = over_repetitions(accuracies, "renders")
    report = {name: {"images": images[name], **row} for name, row in found.items()}
    lines = [
        f"Each row trains a residual network for 64-pixel faces, {steps} steps of 64 images, and "
        f"tests it on {len(test)} renders of other held-out people, the same in every repetition. "
        f"There are {repetitions} repetitions, each with {count} renders of other people, other "
        "samples and another seed. Samples are labelled by the vote.",
        "",
        "- *accuracy*: the mean over the repetitions, with its interval by Student's distribution.",
        "- *deviation*: the standard deviation between repetitions.",
        "- *gain*, in points, and *ratio* compare with the renders of the same repetition.",
        "",
        "The model that samples was trained on renders of yet other people, so it contributes "
        "more than the renders of a row.",
        "",
        *rows(report),
    ]
    results = {
        "repetitions": repetitions,
        "steps": steps,
        "test": len(test),
        "rows": report,
        "guidance": guidance,
    }
    setting.report("downstream", "Training on synthetic faces", results, lines, draw(report))


if __name__ == "__main__":
    main()
