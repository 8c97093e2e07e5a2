"""The training loop: epochs over all inputs, with a state after each from which it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synfer_rt.export.training import state
from synfer_rt.export.training.frozen import place_of
from synfer_rt.export.training.stages import Stage

_WARM_UP = 100
"""Steps in which the learning rate rises to its peak."""
_LAST = 0.01
"""The part of the peak at which the last step ends."""
WEIGHT_DECAY = 0.05


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, with AdamW on cross-entropy.

    `rate` is the peak of the learning rate, which falls as a cosine; `smoothing` is that of the
    labels; gradients longer than `clip` are cut.
    """

    epochs: int
    batch: int
    rate: float
    seed: int
    smoothing: float
    clip: float | None = None


Logits = Callable[[np.ndarray, np.random.Generator], Tensor]
"""Numbers int [n] of inputs, and draws -> the network's logits [n, classes] for them."""


def fit(
    network: nn.Module,
    logits: Logits,
    classes: np.ndarray,
    recipe: Recipe,
    folder: Path,
    stage: Stage,
    remark: Callable[[str], None],
) -> None:
    """Train `network` until `recipe.epochs` epochs are done, going on from the state in `folder`.

    `classes` int64 [n] are those of the n inputs. An epoch's draws follow from the seed and its
    number alone, so a training that was stopped ends with the weights of one that was not, on the
    same device. `remark` is called with a sentence after every epoch.
    """
    device = place_of(network)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, recipe.rate, weight_decay=WEIGHT_DECAY)
    done, count = state.restore(folder, network, optimizer), len(classes)
    if 0 < done < recipe.epochs:
        remark(f"going on after {_epochs(done)}")
    steps = -(-count // recipe.batch)
    network.train()
    with stage("training", recipe.epochs * count, done * count) as report:
        for epoch in range(done, recipe.epochs):
            torch.manual_seed(recipe.seed + epoch)
            rng, total, seen = np.random.default_rng((recipe.seed, epoch)), 0.0, epoch * count
            for i, numbers in enumerate(np.array_split(rng.permutation(count), steps)):
                step = epoch * steps + i
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate * _relative_rate(step, recipe.epochs * steps)
                target = torch.from_numpy(classes[numbers]).to(device)
                found = logits(numbers, rng)
                loss = F.cross_entropy(found, target, label_smoothing=recipe.smoothing)
                optimizer.zero_grad()
                loss.backward()
                if recipe.clip is not None:
                    nn.utils.clip_grad_norm_(trained, recipe.clip)
                optimizer.step()
                total += loss.item() * len(numbers)
                seen += len(numbers)
                report(seen)
            state.keep(folder, network, optimizer, epoch + 1)
            remark(f"epoch {epoch + 1} of {recipe.epochs}: loss {total / count:.3f}")
    network.eval()


def _relative_rate(step: int, steps: int) -> float:
    """The learning rate of a step as a part of its peak: a short rise, then a cosine."""
    half = (1 - _LAST) / 2
    return min(1.0, (step + 1) / _WARM_UP) * (1 - half + half * math.cos(math.pi * step / steps))


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
