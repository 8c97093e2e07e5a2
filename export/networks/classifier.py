"""Any ONNX image classifier as an engine: images [B, 3, H, W] in [0, 1] -> probabilities [B, K]."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from onnx import helper

from synfer_rt.errors import UserError
from synfer_rt.export.files.json_files import check_fields
from synfer_rt.export.networks.image_network import CHANNELS, INPUT_FIELDS, Ending, ImageNetwork
from synfer_rt.vocabulary import label_schemes

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_OFF = 0.01
"""How far the sum of probabilities may be from 1, since half precision rounds them."""


@dataclass(frozen=True)
class ClassifierSource(ImageNetwork):
    """An ONNX classifier and the order of its classes."""

    KIND = "classifier"
    OUTPUTS = ("logits", "probabilities")
    INPUT_REMEDY = "describe its input in `classifier_input`, or in its JSON file"
    OUTPUT_NAME = "write output=NAME in `classifier_input`, or output_name in its JSON file"

    label_scheme: str = field(kw_only=True)

    def __post_init__(self) -> None:
        label_schemes.scheme(self.label_scheme)
        super().__post_init__()

    @property
    def columns(self) -> list[int]:
        """The indices of the scores that are expressions; a scheme may have places for others."""
        names = label_schemes.scheme(self.label_scheme)
        return [i for i, name in enumerate(names) if label_schemes.is_expression(name)]

    @property
    def expressions(self) -> str:
        """The label scheme of the probabilities: the classifier's own, without the other places."""
        names = label_schemes.scheme(self.label_scheme)
        if len(self.columns) == len(names):
            return self.label_scheme
        return ",".join(names[i] for i in self.columns)

    def ending(self) -> Ending:
        """The expressions' scores, then softmax, unless they are probabilities.

        Probabilities of some of the scores are divided by their sum.
        """
        count, columns = len(label_schemes.scheme(self.label_scheme)), self.columns
        nodes, constants, last = [], {}, "scores"
        if len(columns) < count:
            constants["columns"] = np.array(columns, np.int64)
            nodes.append(helper.make_node("Gather", [last, "columns"], ["classes"], axis=1))
            last = "classes"
        if self.output == "logits":
            nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=-1))
        elif len(columns) < count:
            constants["ones"] = np.ones((len(columns), 1), np.float32)
            nodes.append(helper.make_node("MatMul", [last, "ones"], ["sum"]))
            nodes.append(helper.make_node("Div", [last, "sum"], ["probabilities"]))
        else:
            nodes.append(helper.make_node("Identity", [last], ["probabilities"]))
        for node in nodes:
            node.name = node.output[0]
        return Ending(
            "probabilities", "scores", self.label_scheme, count, len(columns), nodes, constants
        )

    def finish(self, scores: torch.Tensor) -> torch.Tensor:
        """Probabilities of the expressions."""
        chosen = scores[:, self.columns]
        if self.output == "logits":
            return chosen.softmax(-1)
        return chosen / chosen.sum(-1, keepdim=True) if chosen.shape != scores.shape else scores

    def count_remedy(self, found: int) -> str:
        """What to do if the file has `found` scores and the label scheme another number."""
        names = label_schemes.scheme(self.label_scheme)
        if found < len(names):
            return "give its label scheme in `classifier_labels`"
        listed = ",".join([*names, *"-" * (found - len(names))])
        return (
            "if some scores are not expressions, write all in their order, with - for each of "
            f'these: `classifier_labels=["{listed}"]`, or label_scheme in its JSON file'
        )

    def doubt(self, scores: np.ndarray) -> str | None:
        """Probabilities that are none, and logits that are probabilities already."""
        chosen = scores[:, self.columns]
        distributions = _are_distributions(scores) or _are_distributions(chosen)
        if self.output == "probabilities" and not distributions:
            remedy = "describe its output as logits"
            if chosen.min() >= 0:
                remedy = "let the network end in a softmax"
            return (
                f"is described as giving probabilities, but its scores, {chosen.min():.3g} to "
                f"{chosen.max():.3g}, do not add up to 1; {remedy}"
            )
        if self.output == "logits" and distributions:
            return (
                "is described as giving logits, but its scores are probabilities, which a second "
                "softmax would make nearly equal; describe its output as probabilities"
            )
        return None


def _are_distributions(scores: np.ndarray) -> bool:
    return bool((scores >= -_OFF).all() and (abs(scores.sum(1) - 1) <= _OFF).all())


def parse_classifier(
    path: Path, label_scheme: str, spec: str, argument: str = "classifier_input"
) -> ClassifierSource:
    """Read `64,rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5`, `224,bgr,imagenet` or `64,grey`.

    The size comes first. `probabilities` says that the model already ends in a softmax, and
    `output=NAME` which of its outputs has the scores. Without mean and std the classifier takes
    images in [0, 1]. Raises UserError for anything else, naming the `argument`.
    """
    size, *words = [word.strip() for word in spec.split(",")]
    given: dict[str, str] = {}
    try:
        for word in words:
            key, _, value = word.partition("=")
            if word in CHANNELS:
                name, value = "channels", word
            elif word in ("imagenet", *ClassifierSource.OUTPUTS):
                name, value = "normalisation" if word == "imagenet" else "output", word
            elif key in ("mean", "std") or (key == "output" and value):
                name = "output_name" if key == "output" else key
            else:
                raise ValueError(word)
            if name in given:
                raise ValueError(f"{word} beside {given[name]}")
            given[name] = value
        channels, pixels = given.get("channels", "rgb"), int(size)
        mean = std = None
        if "normalisation" in given:
            mean, std = (numbers[::-1] if channels == "bgr" else numbers for numbers in IMAGENET)
        if "mean" in given:
            mean = tuple(float(x) for x in given["mean"].split("/"))
        if "std" in given:
            std = tuple(float(x) for x in given["std"].split("/"))
    except ValueError as error:
        raise UserError(
            f"`{argument}` {spec!r} cannot be read ({error}); write it like "
            "64,rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5 or 224,rgb,imagenet."
        ) from None
    count = CHANNELS[channels]
    return ClassifierSource(
        path.stem,
        path,
        pixels,
        channels,
        mean or (0.0,) * count,
        std or (1.0,) * count,
        given.get("output", "logits"),
        given.get("output_name"),
        label_scheme=label_scheme,
    )


def read_classifier(path: Path) -> ClassifierSource:
    """The classifier `path`, described by the JSON file of the same name beside it.

    Raises UserError if that file is missing or wrong.
    """
    file = path.with_suffix(".json")
    try:
        fields = json.loads(file.read_bytes())
        check_fields(file, fields, ("label_scheme", *INPUT_FIELDS))
        return ClassifierSource(
            path.stem,
            path,
            **ClassifierSource.input_fields(fields),
            label_scheme=label_schemes.from_json(fields["label_scheme"]),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file} does not describe {path.name} ({type(error).__name__}: {error}); it needs "
            "label_scheme, input_size, mean and std."
        ) from None
