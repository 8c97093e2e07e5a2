"""What a core-set is worth: k-center, herding and a random choice of the same size.

    python -m reference.experiments.coreset --renders DIR

Each repetition has samples of its own. Of their accepted ones equally many of each class are chosen
by features of the bundle's AU reader, as `synfer-rt distill` does. A classifier is trained on each
choice and tested on held-out renders, whose labels are known. What the choice covers is measured in
the features of the judge, too, which neither labelled nor chose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from reference import classifiers
from reference.evaluation import pages, sampling
from reference.evaluation.diversity import pooled_features
from reference.evaluation.pages import plus_minus, table
from reference.experiments import setting as settings
from reference.experiments.setting import Setting
from reference.experiments.training import (
    TrainingSet,
    one_hot,
    over_repetitions,
    reading,
    real_faces,
    real_rows,
)
from reference.tasks import CLASSES
from synfer_rt.bundle.qualities import FAST
from synfer_rt.coresets.choice import METHODS, RANDOM, choose
from synfer_rt.coresets.covering import covering
from synfer_rt.evaluation.neighbours import manifold
from synfer_rt.jobs.evaluation.networks import Opener, own_features
from synfer_rt.sampling.requests import make_requests

SEED = 400
ALL = "all accepted"
K = 5
"""The nearest other image of the run that is as far as an image is covered."""


@dataclass(frozen=True)
class Pool:
    """The accepted samples of a repetition, from which is chosen.

    `own` and `judged` are features [n, d] of the bundle's AU reader and of the judge, and
    `right` tells of each whether the judge reads the label in it.
    """

    faces: TrainingSet
    own: np.ndarray
    judged: np.ndarray
    right: np.ndarray

    def chosen(self, method: str, per_class: int, seed: int) -> np.ndarray:
        """Rows of the choice, int64 [classes * per_class]."""
        rows = [np.flatnonzero(self.faces.classes == c) for c in range(len(CLASSES))]
        return np.concatenate(
            [mine[choose(method, self.own[mine], per_class, seed)] for mine in rows]
        )

    def covered(self, features: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
        """Covering radius and mean distance to the nearest chosen row, as means over classes."""
        found = []
        for c in range(len(CLASSES)):
            mine = np.flatnonzero(self.faces.classes == c)
            places = np.searchsorted(mine, rows[self.faces.classes[rows] == c])
            of_class = covering(features[mine], places)
            found.append((of_class.radii[-1], of_class.distances[-1]))
        radius, distance = np.mean(found, 0).tolist()
        return radius, distance

    def measures(self, rows: np.ndarray, test: np.ndarray) -> dict[str, float]:
        """What a choice covers, and how many labels of it the judge confirms.

        `test` are features [m, d] of held-out renders by the judge.
        """
        radius, distance = self.covered(self.own, rows)
        further, mean = self.covered(self.judged, rows)
        return {
            "radius": radius,
            "distance": distance,
            "judge_radius": further,
            "judge_distance": mean,
            "coverage": manifold(self.judged[rows], self.judged, K).coverage,
            "test_coverage": manifold(self.judged[rows], test, K).coverage,
            "right": float(self.right[rows].mean()),
        }


def pool_of(setting: Setting, count: int, repetition: int, network: Callable) -> Pool:
    """The accepted ones of `count` samples that no other repetition has, in the default quality."""
    bundle = setting.bundle
    requests = make_requests(bundle, layout="bank", seed=SEED + repetition)
    way = bundle.trajectory(strength=bundle.defaults.layout_strength, quality=FAST)
    wanted = [requests[i] for i in range(count)]
    made = sampling.kept(setting.sampler, wanted, way, setting.work, f"samples {repetition}")
    kept = np.flatnonzero(made["accepted"])
    images = np.asarray(made["images"][kept])
    labels = np.array([bundle.classes.index(wanted[i].label) for i in kept])
    read = classifiers.predict(setting.judge, images).argmax(1)
    return Pool(
        TrainingSet(images, one_hot(labels)),
        network(images.transpose(0, 3, 1, 2).astype(np.float32) / 255),
        pooled_features(setting.judge, images),
        read == labels,
    )


def draw(rows: Mapping[str, Mapping[str, Any]], sizes: Sequence[int]) -> Any:
    """The accuracy and the covering radii of every method at every size."""
    figure, axes = pages.figure(9, 3.6, 2)
    base = rows[f"{RANDOM}, {sizes[0]}"]
    for number, method in enumerate(METHODS):
        own, colour = [rows[f"{method}, {size}"] for size in sizes], f"C{number}"
        values = 100 * np.array([row["accuracy"]["mean"] for row in own])
        places = np.array(sizes) * 1.04 ** (number - 1)  # side by side
        bars = pages.bars(values)
        axes[0].errorbar(places, values[:, 0], bars, c=colour, marker="o", capsize=3, label=method)
        for key, style, features in (
            ("radius", "o-", "AU reader"),
            ("judge_radius", "s--", "judge"),
        ):
            radii = [np.mean(row[key]) / np.mean(base[key]) for row in own]
            axes[1].plot(sizes, radii, style, c=colour, label=f"{method}, {features}")
    axes[0].axhline(100 * rows[ALL]["accuracy"]["mean"][0], color="grey", ls=":", label=ALL)
    axes[0].set(ylabel="accuracy on held-out renders (%)")
    axes[1].set(ylabel=f"covering radius, of {sizes[0]} at random = 1")
    for axis in axes:
        axis.set(xlabel="images chosen", xscale="log")
        axis.set_xticks(sizes, list(map(str, sizes)))
        axis.minorticks_off()
        axis.legend(fontsize=7)
    return figure


def rows_of(report: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The table of all choices."""

    def mean(values: Sequence[float], scale: float = 1, digits: int = 3) -> str:
        return f"{scale * np.mean(values):.{digits}f}"

    columns = ["choice", "images", "accuracy", "gain", "labels right", "radius", "distance"]
    columns += ["radius, judge", "distance, judge", "coverage, judge", "of renders"]
    return table(
        columns,
        [
            [
                name,
                f"{np.mean(row['images']):.0f}",
                plus_minus(row["accuracy"]["mean"]),
                plus_minus(row["accuracy"]["gain"]) if row["method"] not in (RANDOM, ALL) else "",
                mean(row["right"], 100, 1),
                *(mean(row[key]) for key in ("radius", "distance")),
                *(mean(row[key]) for key in ("judge_radius", "judge_distance")),
                *(mean(row[key], 100, 1) for key in ("coverage", "test_coverage")),
            ]
            for name, row in report.items()
        ],
    )


def page(results: Mapping[str, Any]) -> list[str]:
    """The lines of the page."""
    best = {
        size: max(METHODS, key=lambda m: results["rows"][f"{m}, {size}"]["accuracy"]["mean"][0])
        for size in results["sizes"]
    }
    return [
        f"There are {results['repetitions']} repetitions, each with {results['count']} samples of "
        "its own in the default quality. Of the accepted ones, equally many of each class are "
        "chosen by the features of the bundle's AU reader. Each choice trains a residual network "
        f"for 64-pixel faces, {results['steps']} steps of 64 images, {results['trainings']} times "
        f"with other seeds, and tests it on {results['test']} renders of held-out people.",
        "",
        "- *accuracy*: the mean over the repetitions, with its interval by Student's distribution.",
        "- *gain*: how many points more than the random choice of the same size from the same "
        "samples.",
        "- *labels right*: of how many chosen images the judge reads the label.",
        "- *radius*: the largest distance of a sample to the nearest chosen one of its class, and "
        "*distance* the mean, both as means over the classes; in the features that were chosen by, "
        "and in those of the judge, which neither labelled nor chose.",
        f"- *coverage*: the share of all accepted samples that have a chosen one nearer than their "
        f"{K}th nearest other one (arXiv 2002.09797), by the judge; *of renders* is that of the "
        "held-out renders.",
        "",
        *rows_of(results["rows"]),
        "",
        "The highest mean accuracy: "
        + "; ".join(f"of {size} images {name}" for size, name in best.items())
        + ". Gains whose interval lies beyond 0: "
        + pages.beyond_zero(
            {
                name: row["accuracy"]["gain"]
                for name, row in results["rows"].items()
                if row["method"] not in (RANDOM, ALL)
            }
        )
        + ".",
    ]


@click.command()
@settings.options
@click.option("--count", default=1000, show_default=True, help="Samples of each repetition.")
@click.option(
    "--per-class",
    "sizes",
    multiple=True,
    default=(5, 10, 40),
    show_default=True,
    type=click.IntRange(min=1),
)
@click.option("--repetitions", default=3, show_default=True, type=click.IntRange(min=2))
@click.option("--trainings", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--steps", default=120, show_default=True, help="Of 64 images, for every training.")
def main(setting: Setting, count, sizes, repetitions, trainings, steps):
    """Accuracy on held-out real faces of a classifier that was trained on each choice."""
    test = real_faces(setting.data, real_rows(setting.data, test=True))
    seen = pooled_features(setting.judge, test.images)
    network = own_features(setting.bundle, Opener("onnxruntime-cpu", setting.threads))
    assert network is not None
    scores: dict[str, list[float]] = {}
    found: dict[str, dict[str, Any]] = {}
    for k in range(repetitions):
        pool = pool_of(setting, count, k, network)
        arms = {ALL: (ALL, np.arange(len(pool.faces)))}
        for size in sizes:
            for method in METHODS:
                rows = pool.chosen(method, size, k)
                arms[f"{method}, {size * len(CLASSES)}"] = method, rows
        for name, (method, rows) in arms.items():
            reads = [
                reading(pool.faces[rows], test, k + repetitions * i, steps, False, setting.work)
                for i in range(trainings)
            ]
            scores.setdefault(name, []).append(float(np.mean(np.stack(reads) == test.classes)))
            row = found.setdefault(name, {"method": method})
            measured = {"images": len(rows), **pool.measures(rows, seen)}
            for key, value in measured.items():
                row.setdefault(key, []).append(value)
            click.echo(f"{k} {name}: {scores[name][-1]:.4f} {measured}")
    report = {name: found[name] | {"accuracy": _compared(scores, name)} for name in found}
    totals = [size * len(CLASSES) for size in sizes]
    results = {
        "repetitions": repetitions,
        "count": count,
        "sizes": totals,
        "steps": steps,
        "trainings": trainings,
        "test": len(test),
        "rows": report,
    }
    setting.report("coreset", "Core-sets", results, page(results), draw(report, totals))


def _compared(scores: Mapping[str, list[float]], name: str) -> dict[str, Any]:
    """Accuracies of a choice, and its gain to the random one of the same size."""
    size = name.partition(", ")[2]
    base = f"{RANDOM}, {size}" if size else ALL
    return over_repetitions({key: scores[key] for key in (base, name)}, base)[name]


if __name__ == "__main__":
    main()
