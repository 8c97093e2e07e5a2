"""The classifier that the experiments train, and what it is trained and tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from reference import classifiers, renders
from reference.evaluation import statistics
from reference.tasks import CLASSES
from synfer_rt.export.training import cache

RATE = 2e-3


@dataclass(frozen=True)
class TrainingSet:
    """Labelled images: uint8 [n, S, S, 3] and class distributions float32 [n, classes]."""

    images: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __add__(self, other: TrainingSet) -> TrainingSet:
        return TrainingSet(
            np.concatenate([self.images, other.images]),
            np.concatenate([self.targets, other.targets]),
        )

    def __getitem__(self, rows: np.ndarray | slice) -> TrainingSet:
        return TrainingSet(self.images[rows], self.targets[rows])

    @property
    def classes(self) -> np.ndarray:
        """The likeliest class of each, int64 [n]."""
        return self.targets.argmax(1)


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Distributions float32 [n, classes] of class indices."""
    return np.eye(len(CLASSES), dtype=np.float32)[labels]


def real_rows(data: renders.Renders, test: bool) -> np.ndarray:
    """Rows of labelled renders of the held-out identities: every other one is for testing."""
    rows = data.labelled()
    return rows[data.halves(rows) != test]


def real_faces(data: renders.Renders, rows: np.ndarray) -> TrainingSet:
    """These labelled renders."""
    labels = data.annotations["label"][rows].astype(np.int64)
    return TrainingSet(np.asarray(data.images[rows]), one_hot(labels))


def train(
    faces: TrainingSet, seed: int, steps: int, balanced: bool = False, batch: int = 64
) -> nn.Module:
    """A residual network in evaluation mode; `balanced` draws every class equally often."""
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    network = classifiers.residual_network(len(CLASSES), 16)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.05)
    weights = np.ones(len(faces))
    if balanced:
        weights /= np.bincount(faces.classes)[faces.classes]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, 20 * (step + 1) / steps, 2 * (1 - step / steps) + 0.01)
        rows = rng.choice(len(faces), batch, p=weights / weights.sum())
        images = classifiers.as_input(faces.images[rows])
        flips = torch.from_numpy(rng.random(batch) < 0.5)[:, None, None, None]
        images = classifiers.augment(torch.where(flips, images.flip(3), images), generator)
        target = torch.from_numpy(faces.targets[rows])
        loss = F.cross_entropy(network(images), target, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def reading(
    faces: TrainingSet, test: TrainingSet, seed: int, steps: int, balanced: bool, work: Path
) -> np.ndarray:
    """Classes int64 [n] that a network trained on `faces` reads in the test images."""
    facts = [cache.digest(x) for x in (faces.images, faces.targets, test.images)]
    facts.append(Path(__file__).read_text())  # how it is trained

    def run(_: np.ndarray) -> dict[str, np.ndarray]:
        network = train(faces, seed, steps, balanced)
        return {"classes": classifiers.predict(network, test.images).argmax(1)[None]}

    folder = work / f"trained-{cache.key(*facts, seed, steps, balanced)}"
    return cache.rows(folder, 1, run, 1, "training")["classes"][0]


def over_repetitions(accuracies: Mapping[str, Sequence[float]], base: str) -> dict[str, dict]:
    """What accuracies of each arm, one a repetition, say: `mean`, `deviation`, `gain` and `ratio`.

    The last two are those to the arm `base` within a repetition. All but the deviation have
    half-widths.
    """
    before = np.array(accuracies[base])
    return {
        name: {
            "accuracies": list(scores),
            "mean": statistics.over_repetitions(scores),
            "deviation": statistics.spread(scores)[1],
            "gain": statistics.over_repetitions(np.array(scores) - before),
            "ratio": statistics.over_repetitions(np.array(scores) / before),
        }
        for name, scores in accuracies.items()
    }
