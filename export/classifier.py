"""Any ONNX image classifier as an engine: images [B, 3, H, W] in [0, 1] -> probabilities [B, K]."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from onnx import helper

from synfer_rt import labels
from synfer_rt.errors import UserError

from .image_network import Ending, ImageNetwork

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_OFF = 0.01
"""How far probabilities may be from a sum of 1: half precision rounds them."""


@dataclass(frozen=True)
class ClassifierSource(ImageNetwork):
    """An ONNX classifier and the order of its classes."""

    KIND = "classifier"
    OUTPUTS = ("logits", "probabilities")
    INPUT_REMEDY = "say its input with --classifier-input"
    OUTPUT_REMEDY = "say its label scheme"

    label_scheme: str = field(kw_only=True)

    def __post_init__(self) -> None:
        labels.scheme(self.label_scheme)
        super().__post_init__()

    def ending(self) -> Ending:
        """Softmax, unless the scores are probabilities."""
        softmax = helper.make_node("Softmax", ["scores"], ["probabilities"], "softmax", axis=-1)
        nothing = helper.make_node("Identity", ["scores"], ["probabilities"], "probabilities")
        node = softmax if self.output == "logits" else nothing
        count = len(labels.scheme(self.label_scheme))
        return Ending("probabilities", "classes", self.label_scheme, count, count, [node], {})

    def finish(self, scores: torch.Tensor) -> torch.Tensor:
        """Probabilities."""
        return scores.softmax(-1) if self.output == "logits" else scores

    def doubt(self, scores: np.ndarray) -> str | None:
        """Logits beyond [0, 1] or of another sum than 1; probabilities that are softmaxed again."""
        distributions = bool((scores >= -_OFF).all() and (abs(scores.sum(1) - 1) <= _OFF).all())
        if self.output == "probabilities" and not distributions:
            remedy = "describe its output as logits"
            if scores.min() >= 0:
                remedy = "let the network end in a softmax"
            return (
                f"is described as giving probabilities, but its scores, {scores.min():.3g} to "
                f"{scores.max():.3g}, do not add up to 1; {remedy}"
            )
        if self.output == "logits" and distributions:
            return (
                "gives probabilities, of which a softmax would make nearly equal ones; describe "
                "its output as probabilities"
            )
        return None


def parse_classifier(path: Path, label_scheme: str, spec: str) -> ClassifierSource:
    """Read `64,rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5`, `224,rgb,imagenet` or `64,grey`.

    The size comes first; `probabilities` says that no softmax is missing; without mean and std the
    classifier sees [0, 1]. Raises UserError for anything else.
    """
    size, *words = [word.strip() for word in spec.split(",")]
    channels, output, mean, std = "rgb", "logits", None, None
    try:
        for word in words:
            key, _, value = word.partition("=")
            if word in ("rgb", "grey"):
                channels = word
            elif word == "imagenet":
                mean, std = IMAGENET
            elif word in ClassifierSource.OUTPUTS:
                output = word
            elif key == "mean":
                mean = tuple(float(x) for x in value.split("/"))
            elif key == "std":
                std = tuple(float(x) for x in value.split("/"))
            else:
                raise ValueError(word)
        pixels = int(size)
    except ValueError as error:
        raise UserError(
            f"The classifier input {spec!r} cannot be read ({error}); write it like "
            "64,rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5 or 224,rgb,imagenet."
        ) from None
    count = 3 if channels == "rgb" else 1
    mean, std = mean or (0.0,) * count, std or (1.0,) * count
    return ClassifierSource(
        path.stem, path, pixels, channels, mean, std, output, label_scheme=label_scheme
    )


def read_classifier(path: Path) -> ClassifierSource:
    """The classifier `path` as the JSON file of the same name beside it describes it.

    Raises UserError when that file is missing or wrong.
    """
    file = path.with_suffix(".json")
    try:
        fields = json.loads(file.read_bytes())
        return ClassifierSource(
            path.stem,
            path,
            **ClassifierSource.input_fields(fields),
            label_scheme=fields["label_scheme"],
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{file} does not describe {path.name} ({type(error).__name__}: {error}); it needs "
            "label_scheme, input_size, mean and std."
        ) from None
