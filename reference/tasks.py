"""The tasks that small networks learn from renders: targets, loss and scores of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from reference import captions
from synfer_rt.vocabulary import facs, label_schemes

CLASSES = label_schemes.scheme("affectnet-8")


@dataclass(frozen=True)
class Task:
    """What a network learns to read from a render.

    `outputs` is the number of its outputs. `targets` maps annotations to targets [N, ...] of all
    rows, and `mirrored` maps targets to those of the mirror images. `loss` takes outputs and
    targets of a batch as tensors; `scores` takes both as arrays and returns lines of text. A class
    target of -1 is unknown; renders with no known target are left out.
    """

    outputs: int
    targets: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    mirrored: Callable[[np.ndarray], np.ndarray]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    scores: Callable[[np.ndarray, np.ndarray], list[str]]


def choices(
    targets: Callable[[Mapping[str, np.ndarray]], np.ndarray], groups: Mapping[str, Sequence[str]]
) -> Task:
    """Classification in several groups at once; the loss is the sum of their cross-entropies.

    Targets are indices int64 [N, groups].
    """

    def loss(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        parts = outputs.split([len(names) for names in groups.values()], 1)
        losses = [
            F.cross_entropy(
                part, column, ignore_index=-1, label_smoothing=0.05, reduction="sum"
            ) / (column >= 0).sum().clamp(min=1)
            for part, column in zip(parts, target.unbind(1), strict=True)
        ]  # fmt: skip
        return torch.stack(losses).sum()

    def scores(outputs: np.ndarray, target: np.ndarray) -> list[str]:
        lines = []
        read = chosen(outputs, groups)
        for i, (group, names) in enumerate(groups.items()):
            known = target[:, i] >= 0
            truth, right = target[known, i], (read[:, i] == target[:, i])[known]
            each = ", ".join(
                f"{name} {right[truth == k].mean():.2f}"
                for k, name in enumerate(names)
                if (truth == k).any()
            )
            lines.append(f"held-out {group} {right.mean():.3f} on {len(right)} renders: {each}")
        return lines

    return Task(sum(map(len, groups.values())), targets, lambda target: target, loss, scores)


def chosen(outputs: np.ndarray, groups: Mapping[str, Sequence[str]]) -> np.ndarray:
    """The likeliest name of each group, int64 [n, groups], of a `choices` network's outputs."""
    ends = np.cumsum([len(names) for names in groups.values()])
    return np.stack([part.argmax(1) for part in np.split(outputs, ends[:-1], 1)], 1)


def intensities(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Task:
    """Prediction of every action unit's intensity; targets are float32 [N, 41]."""

    def scores(outputs: np.ndarray, target: np.ndarray) -> list[str]:
        return [
            f"{unit} correlation {np.corrcoef(outputs[:, i], target[:, i])[0, 1]:.2f}"
            for i, unit in enumerate(facs.OPENGRAPHAU_41)
            if target[:, i].std() > 0
        ]

    return Task(
        len(facs.OPENGRAPHAU_41),
        lambda annotations: annotations["au"].astype(np.float32),
        facs.mirror,
        loss,
        scores,
    )


EXPRESSION = choices(
    lambda annotations: annotations["label"].astype(np.int64)[:, None], {"expression": CLASSES}
)
ATTRIBUTES = choices(captions.bands, captions.BANDS)
