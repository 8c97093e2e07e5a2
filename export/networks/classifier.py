"""Any ONNX image classifier as an engine: images [B, 3, H, W] in [0, 1] -> probabilities [B, K]."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import helper

from synfer_rt.errors import UserError
from synfer_rt.export.files.json_files import check_fields
from synfer_rt.export.networks.image_network import INPUT_FIELDS, Ending, ImageNetwork
from synfer_rt.networks.descriptions import parse
from synfer_rt.vocabulary import label_schemes
from synfer_rt.vocabulary.scheme_files import LabelScheme, given_scheme

_HEAD_FIELDS = ("label_scheme", "output", "output_name")
_OFF = 0.01
"""How far the sum of probabilities may be from 1, since half precision rounds them."""


@dataclass(frozen=True)
class ClassifierSource(ImageNetwork):
    """An ONNX classifier and the order of its classes.

    `mappings` say what the classes are in other label schemes. `others` are further heads: outputs
    of the same file, each with classes of its own, on features that are computed once (after CIAO,
    arXiv 2208.07221).
    """

    KIND = "classifier"
    OUTPUTS = ("logits", "probabilities")
    LABELS, INPUT = "classifier_labels", "classifier_input"
    """The arguments that describe it."""
    INPUT_REMEDY = "describe its input in `classifier_input`, or in its JSON file"
    OUTPUT_NAME = "write output=NAME in `classifier_input`, or output_name in its JSON file"

    label_scheme: str = field(kw_only=True)
    mappings: Mapping[str, label_schemes.Mapped] = field(
        kw_only=True, default_factory=dict[str, label_schemes.Mapped]
    )
    others: tuple[ClassifierSource, ...] = field(kw_only=True, default=())
    is_head: bool = field(kw_only=True, default=False)

    def __post_init__(self) -> None:
        label_schemes.scheme(self.label_scheme)
        super().__post_init__()

    @property
    def heads(self) -> Sequence[ClassifierSource]:
        """Each head as a source of its own."""
        if not self.others:
            return (self,)
        return tuple(replace(one, others=(), is_head=True) for one in (self, *self.others))

    @property
    def suffix(self) -> str:
        """The name of a head, which is that of the file's output, after a dot."""
        return f".{self.output_name}" if self.is_head else ""

    @property
    def dimensions(self) -> dict[str, int]:
        """The indices of the scores that are valence and arousal, by these names."""
        names = label_schemes.scheme(self.label_scheme)
        return {name: i for i, name in enumerate(names) if name in label_schemes.DIMENSIONS}

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
        return label_schemes.listed([names[i] for i in self.columns])

    def mapping_to(self, target: str) -> label_schemes.Mapped:
        """What its classes are in the label scheme `target`; {} without a mapping."""
        return LabelScheme(self.label_scheme, self.mappings).mapped_to(target)

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
        for name, column in self.dimensions.items():
            constants[f"{name}_column"] = np.array(column, np.int64)
            nodes.append(helper.make_node("Gather", ["scores", f"{name}_column"], [name], axis=1))
        for node in nodes:
            node.name = node.output[0]
        return Ending(
            "probabilities",
            "scores",
            self.label_scheme,
            count,
            len(columns),
            nodes,
            constants,
            tuple(self.dimensions),
        )

    def finish(self, scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Probabilities of the expressions, and the dimensions."""
        chosen = scores[:, self.columns]
        if self.output == "logits":
            chosen = chosen.softmax(-1)
        elif chosen.shape != scores.shape:
            chosen = chosen / chosen.sum(-1, keepdim=True)
        return (chosen, *(scores[:, column] for column in self.dimensions.values()))

    def manifest_fields(self, target: str) -> dict[str, Any]:
        """What the manifest says of the engine's classes, in a bundle of the scheme `target`."""
        first, *others = (head.head_fields(target) for head in self.heads)
        if not others:
            return first
        named = {str(head.output_name): head.head_fields(target) for head in self.heads}
        return {"label_scheme": first["label_scheme"], "heads": named}

    def head_fields(self, target: str) -> dict[str, Any]:
        """The label scheme of the probabilities, and its mapping to `target` if there is one."""
        mapping = self.mapping_to(target)
        return {"label_scheme": self.expressions, **({"mapping": mapping} if mapping else {})}

    def remarks(self, target: str) -> Iterator[str]:
        """Sentences on classes that have no part in a vote on the classes of `target`."""
        for head in self.heads:
            scheme, mapping = head.expressions, head.mapping_to(target)
            if lost := label_schemes.left_out(scheme, target, mapping):
                yield (
                    f"The classes {', '.join(lost)} of classifier.{self.name}{head.suffix} have no "
                    f"part in the vote: {target} lacks them and nothing maps them to it; a scheme "
                    "file's `mappings` can."
                )

    def count_remedy(self, found: int) -> str:
        """What to do if the file has `found` scores and the label scheme another number."""
        names = label_schemes.scheme(self.label_scheme)
        if found < len(names):
            return f"give its label scheme in `{self.LABELS}`"
        listed = label_schemes.listed([*names, *"-" * (found - len(names))])
        return (
            "if some scores are not expressions, write all in their order, with - for each of "
            f"these, in {self._in_labels(listed)}"
        )

    @staticmethod
    def _in_labels(listed: str) -> str:
        """Where the list of all classes is written, for messages."""
        return f'`classifier_labels=["{listed}"]`, or label_scheme in its JSON file'

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


@dataclass(frozen=True)
class GuideSource(ClassifierSource):
    """A classifier that guides and is described by the argument `guide`."""

    LABELS = INPUT = "guide"
    INPUT_REMEDY = "describe its input in `guide`"
    OUTPUT_NAME = "write output=NAME in the description of its input in `guide`"

    @staticmethod
    def _in_labels(listed: str) -> str:
        return f'`guide`: "{listed}"'


def with_heads(sources: Sequence[ClassifierSource]) -> tuple[ClassifierSource, ...]:
    """The sources, with those of one file together as heads of one network.

    Raises UserError for heads without the names of their outputs, with the same one, or with
    different inputs.
    """
    by_file: dict[Path, list[ClassifierSource]] = {}
    for source in sources:
        by_file.setdefault(source.path, []).append(source)
    return tuple(_joined(heads) if len(heads) > 1 else heads[0] for heads in by_file.values())


def _joined(heads: Sequence[ClassifierSource]) -> ClassifierSource:
    first, *others = heads
    names = [head.output_name for head in heads]
    if None in names or len(set(names)) < len(names):
        raise UserError(
            f"{first.path} is given {len(heads)} times; name another of its outputs each time: "
            f"{ClassifierSource.OUTPUT_NAME}."
        )
    inputs = {(h.input_size, h.channels, h.mean, h.std) for h in heads}
    if len(inputs) > 1:
        raise UserError(
            f"The heads of {first.path} have different inputs; describe the same one for each, "
            "because they share their features."
        )
    read = [name for head in heads for name in head.dimensions]
    if len(set(read)) < len(read):
        raise UserError(
            f"Several heads of {first.path} have {read[0]}; write - for it in all but one."
        )
    return replace(first, others=tuple(others))


def _are_distributions(scores: np.ndarray) -> bool:
    return bool((scores >= -_OFF).all() and (abs(scores.sum(1) - 1) <= _OFF).all())


def parse_classifier(
    path: Path, label_scheme: object, spec: str, kind: type[ClassifierSource] = ClassifierSource
) -> ClassifierSource:
    """The classifier `path` of a label scheme (`given_scheme`), with the input that `spec` says.

    Read `64,rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5`, `224,bgr,imagenet` or `64,grey`.

    The size comes first. `probabilities` says that the model already ends in a softmax, and
    `output=NAME` which of its outputs has the scores. Without mean and std the classifier takes
    images in [0, 1]. Raises UserError for anything else, naming the argument of the `kind`.
    """
    scheme = given_scheme(label_scheme, kind.LABELS)
    found = parse(spec, kind.INPUT, kind.OUTPUTS)
    return kind(
        path.stem,
        path,
        found.input_size,
        found.channels,
        found.mean,
        found.std,
        found.output,
        found.output_name,
        label_scheme=scheme.text,
        mappings=scheme.mappings,
    )


def _described(path: Path, fields: Mapping[str, Any]) -> ClassifierSource:
    scheme = given_scheme(fields["label_scheme"], folder=path.parent)
    return ClassifierSource(
        path.stem,
        path,
        **ClassifierSource.input_fields(fields),
        label_scheme=scheme.text,
        mappings=scheme.mappings,
    )


def read_classifier(path: Path) -> ClassifierSource:
    """The classifier `path`, described by the JSON file of the same name beside it.

    Its `heads`, if it has any, are a list of objects with the fields `label_scheme`, `output` and
    `output_name`. Raises UserError if that file is missing or wrong.
    """
    file = path.with_suffix(".json")
    try:
        fields = json.loads(file.read_bytes())
        check_fields(file, fields, (*_HEAD_FIELDS, *INPUT_FIELDS, "heads"))
        heads = fields.pop("heads", [{}])
        for head in heads:
            check_fields(file, head, _HEAD_FIELDS)
        (source,) = with_heads([_described(path, {**fields, **head}) for head in heads])
        return source
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file} does not describe {path.name} ({type(error).__name__}: {error}); it needs "
            "label_scheme, input_size, mean and std."
        ) from None
