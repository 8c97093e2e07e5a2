"""What synthetic faces are worth as training data.

    python -m reference.experiments.downstream --renders DIR

A classifier is trained on real faces (here: rendered, of held-out identities), on as many synthetic
ones, on five times as many, and on both; each sees the same number of images. The paper trains on
AffectNet: 67.23 with as many synthetic images and 69.84 with five times as many, against about 67.5
with real ones (arXiv 2410.09865).
"""

from __future__ import annotations

from dataclasses import replace

import click
import numpy as np

from reference.evaluation import pages, statistics
from reference.evaluation.pages import plus_minus, table
from reference.experiments import setting as settings
from reference.experiments.sampling import Recipe, sample_set
from reference.experiments.setting import Setting
from reference.experiments.training import TrainingSet, one_hot, real_faces, repeated

TIMES = 5


def synthetic(made: dict[str, np.ndarray]) -> TrainingSet:
    """Samples as training data: the vote's distribution where it replaced the label."""
    targets = one_hot(made["requested"])
    rectified = made["label"] != made["requested"]
    targets[rectified] = made["probabilities"][rectified]
    return TrainingSet(np.asarray(made["images"]), targets)


def arms(real: TrainingSet, made: TrainingSet) -> dict[str, TrainingSet]:
    """What is trained on; `made` are TIMES as many as `real`."""
    n = len(real)
    return {
        "renders": real,
        "synthetic, as many": made[:n],
        f"synthetic, {TIMES} times": made,
        f"renders and synthetic, {TIMES} times": real + made,
    }


@click.command()
@settings.options
@click.option("--real", "count", default=320, show_default=True, help="Real images, at most.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--steps", default=160, show_default=True, help="Of 64 images, for every training.")
@click.option("--guidance", type=float, help="Strength of semantic guidance, form latent.")
def main(setting: Setting, count, seeds, steps, guidance):
    """Accuracy on held-out real faces, mean over seeds."""
    real = real_faces(setting.data, test=False)
    real = real[np.random.default_rng(0).permutation(len(real))[:count]]
    test = real_faces(setting.data, test=True)
    recipe = Recipe("defaults")
    if guidance:
        recipe = replace(recipe, form="latent", strength=guidance)
    made = synthetic(sample_set(setting.sampler, recipe, TIMES * len(real), 101, setting.work))
    report = {}
    for name, faces in arms(real, made).items():
        read = repeated(faces, test, range(seeds), steps, False, setting.work)
        scores = [float(np.mean(row == test.classes)) for row in read]
        report[name] = {
            "images": len(faces),
            "accuracies": scores,
            "mean": statistics.over_seeds(scores),
            "deviation": float(np.std(scores, ddof=1)),
        }
    base = np.array(report["renders"]["accuracies"])
    for row in report.values():
        row["ratio"] = statistics.over_seeds(np.array(row["accuracies"]) / base)
    figure, axes = pages.figure(7, 3.6)
    values = 100 * np.array([row["mean"] for row in report.values()])
    axes.bar(range(len(report)), values[:, 0], 0.6, yerr=pages.bars(values), capsize=4)
    for i, row in enumerate(report.values()):
        axes.plot([i] * seeds, 100 * np.array(row["accuracies"]), "k.", ms=5)
    axes.set_xticks(range(len(report)), list(report), rotation=12)
    axes.set(ylabel="accuracy on held-out renders (%)", ylim=(0, 105))
    lines = [
        f"A residual network of 64-pixel faces, {steps} steps of 64 images for each row, tested "
        f"on {len(test)} renders of other held-out identities; {seeds} seeds of the training, the "
        "same samples. Labels are those after the vote. The model that samples was trained on "
        "renders of yet other people: it brings more than the renders here.",
        "",
        *table(
            ["trained on", "images", "accuracy", "deviation", "ratio to renders"],
            [
                [
                    name,
                    str(row["images"]),
                    plus_minus(row["mean"]),
                    f"{100 * row['deviation']:.1f}",
                    plus_minus(row["ratio"], 1, 2) if name != "renders" else "",
                ]
                for name, row in report.items()
            ],
        ),
    ]
    results = {"steps": steps, "test": len(test), "rows": report, "guidance": guidance}
    setting.report("downstream", "Training on synthetic faces", results, lines, figure)


if __name__ == "__main__":
    main()
