"""Filling up rare classes: RAF-DB's class counts imposed on real faces (here: rendered).

    python -m reference.experiments.long_tail --renders DIR

A classifier is trained on the long tail as it is, with oversampling, and with every class filled up
to the size of the largest by the VAE (arXiv 2411.17254), by the VAE with repair, and by sampling.
Only additions that the vote accepts are used. All trainings but the first draw the classes equally
often. The whole is repeated with a tail of other people, other additions and another seed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

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
from reference.tasks import CLASSES
from synfer_rt.data.datasets import read_dataset
from synfer_rt.export.training import cache
from synfer_rt.jobs.augment import Augmenter
from synfer_rt.jobs.augmentation import Augmentation
from synfer_rt.jobs.balance import additions, targets

RAF_DB = {
    "surprise": 1290,
    "fear": 281,
    "disgust": 717,
    "happy": 4772,
    "sad": 1982,
    "anger": 705,
    "neutral": 2524,
}
"""Training images of each class in RAF-DB (Li et al., CVPR 2017), 12,271 in all."""
RAREST = 3
SEED = 5
BASE = "oversampled"
"""The baseline of the additions: the same faces, with every class drawn equally often."""


def tail_counts(groups: Sequence[np.ndarray], largest: int) -> dict[str, int]:
    """RAF-DB's counts, scaled so that the largest class has `largest`; at least 2 each.

    `largest` is lowered until each of the groups, classes int64 [n], has enough faces.
    """
    most = max(RAF_DB.values())
    fits = [
        np.sum(classes == CLASSES.index(name)) * most / count
        for classes in groups
        for name, count in RAF_DB.items()
    ]
    scale = min(largest, *fits) / most
    return {name: max(2, round(scale * count)) for name, count in RAF_DB.items()}


def tail(classes: np.ndarray, counts: Mapping[str, int]) -> np.ndarray:
    """Rows of the first faces of each class, as many as `counts` says; `classes` is int64 [n]."""
    chosen = [
        np.flatnonzero(classes == CLASSES.index(name))[:count] for name, count in counts.items()
    ]
    return np.sort(np.concatenate(chosen))


def balanced_accuracy(read: np.ndarray, classes: np.ndarray) -> float:
    """The mean over the classes of their recall."""
    return float(np.mean([np.mean(read[classes == c] == c) for c in np.unique(classes)]))


def write_folders(faces: TrainingSet, out: Path) -> None:
    """Write a dataset of class folders, as `synfer-rt augment` reads it."""
    for i, (image, label) in enumerate(zip(faces.images, faces.classes, strict=True)):
        folder = out / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:05}.png")


def augmented(
    setting: Setting, dataset: Path, noise_scale: float, repair: int, seed: int
) -> TrainingSet:
    """The accepted additions of an augmentation of `dataset` that balances its classes."""
    source = read_dataset(dataset, "folders")
    counts = source.counts()
    wanted = additions(counts, targets(counts, "max"))
    how = noise_scale, repair, 0.5, 4, seed
    job = Augmentation(source.items, wanted, *how)
    augmenter = Augmenter(job, setting.sampler)
    begin = len(source.items)

    def make(numbers: np.ndarray) -> dict[str, np.ndarray]:
        made = augmenter.make([int(i) + begin for i in numbers])
        return {
            "images": np.stack([np.asarray(Image.open(io.BytesIO(file))) for _, file in made]),
            "labels": np.array([CLASSES.index(record["label"]) for record, _ in made]),
            "accepted": np.array([record["accepted"] for record, _ in made]),
        }

    # The dataset is named by its images; its files are written anew each time.
    way = setting.bundle.trajectory(steps=repair, strength=how[2]) if repair else None
    steps = way and (way.timesteps.tolist(), cache.digest(way.coefficients))
    facts = (setting.bundle.bundle_hash, setting.computation, dataset.name, wanted, steps)
    folder = setting.work / f"augmented-{cache.key(*facts, *how)}"
    found = cache.rows(folder, len(wanted), make, 32, f"augmenting, {repair} repair steps")
    kept = found["accepted"]
    return TrainingSet(found["images"][kept], one_hot(found["labels"][kept]))


def sampled(setting: Setting, counts: Mapping[str, int], repetition: int) -> TrainingSet:
    """The accepted ones of the samples that fill every class up to the largest of `counts`.

    No sample is in two repetitions.
    """
    recipe, parts = Recipe("a class"), []
    for name, count in counts.items():
        missing = max(counts.values()) - count
        if missing:
            one = replace(recipe, name=name, labels=(name,))
            first = repetition * missing
            made = sample_set(setting.sampler, one, missing, SEED, setting.work, first)
            kept = made["accepted"]
            parts.append(TrainingSet(made["images"][kept], one_hot(made["requested"][kept])))
    return sum(parts[1:], parts[0])


def arms(
    setting: Setting,
    faces: TrainingSet,
    counts: Mapping[str, int],
    noise_scale: float,
    repair: int,
    repetition: int,
) -> dict[str, TrainingSet]:
    """The training sets of a repetition, by name; its tail is `faces`, with these class counts."""
    dataset = setting.work / f"tail-{cache.key(cache.digest(faces.images))}"
    write_folders(faces, dataset)
    seed = SEED + repetition
    return {
        "as it is": faces,
        BASE: faces,
        "VAE": faces + augmented(setting, dataset, noise_scale, 0, seed),
        "VAE and repair": faces + augmented(setting, dataset, noise_scale, repair, seed),
        "sampled": faces + sampled(setting, counts, repetition),
    }


def draw(report: Mapping[str, Mapping[str, Any]]) -> Any:
    """A figure of the balanced accuracy of every arm, over all classes and the rarest."""
    figure, axes = pages.figure(7, 3.6)
    for offset, measure, label in ((-0.2, "all", "all classes"), (0.2, "rare", f"{RAREST} rarest")):
        values = 100 * np.array([row[measure]["mean"] for row in report.values()])
        places = np.arange(len(report)) + offset
        axes.bar(places, values[:, 0], 0.38, yerr=pages.bars(values), capsize=3, label=label)
    axes.set_xticks(range(len(report)), list(report))
    axes.set(ylabel="balanced accuracy (%)", ylim=(0, 105))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def rows(report: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The table of all arms."""
    rarest = f"{RAREST} rarest"
    return table(
        ["training set", "images", "balanced accuracy", "deviation", "gain", rarest, "gain"],
        [
            [
                name,
                f"{np.mean(row['images']):.0f}",
                plus_minus(row["all"]["mean"]),
                f"{100 * row['all']['deviation']:.1f}",
                plus_minus(row["all"]["gain"]) if name != BASE else "",
                plus_minus(row["rare"]["mean"]),
                plus_minus(row["rare"]["gain"]) if name != BASE else "",
            ]
            for name, row in report.items()
        ],
    )


def page(results: Mapping[str, Any], noise_scale: float, repair: int) -> list[str]:
    """The lines of the page."""
    return [
        "Training faces: "
        + ", ".join(f"{name} {count}" for name, count in results["counts"].items())
        + ". Each row trains a residual network for 64-pixel faces, "
        f"{results['steps']} steps of 64 images, "
        f"and tests it on {results['test']} renders of other held-out people, the same in every "
        f"repetition. There are {results['repetitions']} repetitions, each with a tail of other "
        f"people, other additions and another seed. Noise scale {noise_scale:g}, {repair} repair "
        "steps.",
        "",
        "- *accuracy*: the mean over the repetitions, with its interval by Student's distribution.",
        "- *deviation*: the standard deviation between repetitions.",
        f"- *gain*: how many points more than {BASE} in the same repetition.",
        "",
        "The model that repairs and samples was trained on renders of yet other people, so it "
        "contributes more than these faces.",
        "",
        *rows(results["rows"]),
    ]


@click.command()
@settings.options
@click.option("--largest", default=50, show_default=True, help="Faces of the largest class.")
@click.option("--noise-scale", default=8.0, show_default=True)
@click.option("--repair-steps", default=4, show_default=True)
@click.option("--repetitions", default=5, show_default=True, type=click.IntRange(min=2))
@click.option("--steps", default=120, show_default=True, help="Of 64 images, for every training.")
def main(setting: Setting, largest, noise_scale, repair_steps, repetitions, steps):
    """Balanced accuracy on held-out real faces; each repetition has a tail of its own."""
    data = setting.data
    pool = real_rows(data, test=False)
    drawn = np.random.default_rng(SEED)
    groups = [
        real_faces(data, pool[part])
        for part in statistics.parted(data.annotations["identity"][pool], repetitions, drawn)
    ]
    counts = tail_counts([group.classes for group in groups], largest)
    test = real_faces(data, real_rows(data, test=True))
    test = test[test.classes != CLASSES.index("contempt")]
    rare = [CLASSES.index(name) for name in sorted(RAF_DB, key=RAF_DB.__getitem__)[:RAREST]]
    among = np.isin(test.classes, rare)
    images: dict[str, list[int]] = {}
    scores: dict[str, dict[str, list[float]]] = {"all": {}, "rare": {}}
    for k, group in enumerate(groups):
        faces = group[tail(group.classes, counts)]
        for name, pictures in arms(setting, faces, counts, noise_scale, repair_steps, k).items():
            read = reading(pictures, test, k, steps, name != "as it is", setting.work)
            few = balanced_accuracy(read[among], test.classes[among])
            images.setdefault(name, []).append(len(pictures))
            scores["all"].setdefault(name, []).append(balanced_accuracy(read, test.classes))
            scores["rare"].setdefault(name, []).append(few)
    found = {measure: over_repetitions(those, BASE) for measure, those in scores.items()}
    report = {
        name: {"images": counted, **{measure: arm[name] for measure, arm in found.items()}}
        for name, counted in images.items()
    }
    results = {
        "counts": counts,
        "repetitions": repetitions,
        "steps": steps,
        "test": len(test),
        "rows": report,
    }
    lines = page(results, noise_scale, repair_steps)
    setting.report("long_tail", "Filling up rare classes", results, lines, draw(report))


if __name__ == "__main__":
    main()
