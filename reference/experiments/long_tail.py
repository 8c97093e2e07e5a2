"""Filling up rare classes: RAF-DB's class counts imposed on real faces (here: rendered).

    python -m reference.experiments.long_tail --renders DIR

A classifier is trained on the long tail as it is, with oversampling, and with every class filled up
to the size of the largest by the VAE (arXiv 2411.17254), by the VAE with repair, and by sampling.
Only additions that the vote accepts are used. All but the first draw the classes equally often.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from PIL import Image

from reference import cache
from reference.evaluation import pages, statistics
from reference.evaluation.pages import plus_minus, table
from reference.experiments import setting as settings
from reference.experiments.sampling import Recipe, sample_set
from reference.experiments.setting import Setting
from reference.experiments.training import TrainingSet, one_hot, real_faces, repeated
from reference.tasks import CLASSES
from synfer_rt.augment import Augmentation, Augmenter, additions, targets
from synfer_rt.datasets import read_dataset

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


def tail(classes: np.ndarray, largest: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of faces whose counts are RAF-DB's, scaled so that the largest class has `largest`.

    Every class keeps two at least. `largest` is lowered to what the classes [n] hold.
    """
    members = {name: np.flatnonzero(classes == CLASSES.index(name)) for name in RAF_DB}
    most = max(RAF_DB.values())
    fits = min(len(rows) * most / RAF_DB[name] for name, rows in members.items())
    scale = min(largest, fits) / most
    chosen = [
        rng.permutation(rows)[: max(2, round(scale * RAF_DB[name]))]
        for name, rows in members.items()
    ]
    return np.sort(np.concatenate(chosen))


def balanced_accuracy(read: np.ndarray, classes: np.ndarray) -> float:
    """Mean over the classes of the share of their faces that are read right."""
    return float(np.mean([np.mean(read[classes == c] == c) for c in np.unique(classes)]))


def write_folders(faces: TrainingSet, out: Path) -> None:
    """A dataset of class folders, as `synfer-rt augment` reads it."""
    for i, (image, label) in enumerate(zip(faces.images, faces.classes, strict=True)):
        folder = out / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:05}.png")


def augmented(setting: Setting, dataset: Path, noise_scale: float, repair: int) -> TrainingSet:
    """The accepted additions of an augmentation of `dataset` that balances its classes."""
    source = read_dataset(dataset, "folders")
    counts = source.counts()
    wanted = additions(counts, targets(counts, "max"))
    how = noise_scale, repair, 0.5, 4, SEED
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
    facts = (setting.bundle.bundle_hash, setting.backend, dataset.name, wanted)
    folder = setting.work / f"augmented-{cache.key(*facts, *how)}"
    found = cache.rows(folder, len(wanted), make, 32, f"augmenting, {repair} repair steps")
    kept = found["accepted"]
    return TrainingSet(found["images"][kept], one_hot(found["labels"][kept]))


def sampled(setting: Setting, faces: TrainingSet) -> TrainingSet:
    """Accepted samples of every class, as many as its faces lack of the largest class."""
    counts = {name: int(np.sum(faces.classes == CLASSES.index(name))) for name in RAF_DB}
    recipe, parts = Recipe("a class"), []
    for name, count in counts.items():
        missing = max(counts.values()) - count
        if missing:
            one = replace(recipe, name=name, labels=name)
            made = sample_set(setting.sampler, one, missing, SEED, setting.work)
            kept = made["accepted"]
            parts.append(TrainingSet(made["images"][kept], one_hot(made["requested"][kept])))
    return sum(parts[1:], parts[0])


@click.command()
@settings.options
@click.option("--largest", default=120, show_default=True, help="Faces of the largest class.")
@click.option("--noise-scale", default=8.0, show_default=True)
@click.option("--repair-steps", default=4, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--steps", default=160, show_default=True, help="Of 64 images, for every training.")
def main(setting: Setting, largest, noise_scale, repair_steps, seeds, steps):
    """Balanced accuracy on held-out real faces, mean over seeds."""
    pool, test = (real_faces(setting.data, test=test) for test in (False, True))
    test = test[test.classes != CLASSES.index("contempt")]
    faces = pool[tail(pool.classes, largest, np.random.default_rng(SEED))]
    key = cache.key(cache.digest(faces.images))
    dataset = setting.work / f"tail-{key}"
    write_folders(faces, dataset)
    arms = {
        "as it is": faces,
        "oversampled": faces,
        "VAE": faces + augmented(setting, dataset, noise_scale, 0),
        "VAE and repair": faces + augmented(setting, dataset, noise_scale, repair_steps),
        "sampled": faces + sampled(setting, faces),
    }
    rare = [CLASSES.index(name) for name in sorted(RAF_DB, key=RAF_DB.__getitem__)[:RAREST]]
    among = np.isin(test.classes, rare)
    report = {}
    for name, pictures in arms.items():
        balanced = name != "as it is"
        read = repeated(pictures, test, range(seeds), steps, balanced, setting.work)
        scores = [balanced_accuracy(row, test.classes) for row in read]
        few = [balanced_accuracy(row[among], test.classes[among]) for row in read]
        report[name] = {
            "images": len(pictures),
            "balanced_accuracies": scores,
            "mean": statistics.over_seeds(scores),
            "deviation": float(np.std(scores, ddof=1)),
            "rare": statistics.over_seeds(few),
        }
    counts = {name: int(np.sum(faces.classes == CLASSES.index(name))) for name in RAF_DB}
    figure, axes = pages.figure(7, 3.6)
    for offset, measure in ((-0.2, "mean"), (0.2, "rare")):
        values = 100 * np.array([row[measure] for row in report.values()])
        label = "all classes" if measure == "mean" else f"the {RAREST} rarest"
        places = np.arange(len(report)) + offset
        axes.bar(places, values[:, 0], 0.38, yerr=pages.bars(values), capsize=3, label=label)
    axes.set_xticks(range(len(report)), list(report))
    axes.set(ylabel="balanced accuracy (%)", ylim=(0, 105))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    lines = [
        "Faces trained on: "
        + ", ".join(f"{name} {count}" for name, count in counts.items())
        + f"; tested on {len(test)} renders of other held-out identities. A residual network of "
        f"64-pixel faces, {steps} steps of 64 images for each row, {seeds} seeds of the training. "
        f"Noise scale {noise_scale:g}, {repair_steps} repair steps. The model that repairs and "
        "samples was trained on renders of yet other people: it brings more than these faces.",
        "",
        *table(
            ["training set", "images", "balanced accuracy", "deviation", f"{RAREST} rarest"],
            [
                [
                    name,
                    str(row["images"]),
                    plus_minus(row["mean"]),
                    f"{100 * row['deviation']:.1f}",
                    plus_minus(row["rare"]),
                ]
                for name, row in report.items()
            ],
        ),
    ]
    results = {"counts": counts, "steps": steps, "test": len(test), "rows": report}
    setting.report("long_tail", "Filling up rare classes", results, lines, figure)


if __name__ == "__main__":
    main()
