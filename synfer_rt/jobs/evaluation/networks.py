"""The networks that evaluate a run, opened from what users give."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError, nearest
from synfer_rt.judging.annotators import AU_READER
from synfer_rt.networks import onnx_file
from synfer_rt.networks.descriptions import RESIZING, Description, parse
from synfer_rt.networks.image_network import ImageNetwork
from synfer_rt.paths import local
from synfer_rt.vocabulary import facs, label_schemes

BACKENDS = ("onnxruntime-cpu", "onnxruntime-cuda")
FEATURES, IDENTITY = ("features",), ("embedding",)
SCORES, INTENSITIES = ("logits", "probabilities"), ("intensities", "logits")
"""The kinds of output of each network, by default the first."""
_WITH_OUTPUT = re.compile(r"(.*?\.onnx):(.+)", re.IGNORECASE | re.DOTALL)
_NO_UNIT = "-"
_LEAST_PROBABILITY = 1e-30
_OFF = 0.01
"""How far the sum of probabilities may be from 1, since half precision rounds them."""


@dataclass(frozen=True)
class Opener:
    """Opens networks on one of BACKENDS, with so many threads. Raises UserError for another."""

    backend: str
    threads: int

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            known = ", ".join(BACKENDS)
            raise UserError(f"`backend` must be one of {known}, got {self.backend!r}.")

    def network(
        self, path: Path, described: Description, what: str, kinds: tuple[str, ...]
    ) -> ImageNetwork:
        """See ImageNetwork."""
        return ImageNetwork(path, described, what, kinds, self.backend, self.threads)

    def described(
        self, file: Any, text: str, argument: str, kinds: tuple[str, ...]
    ) -> ImageNetwork:
        """The network of a `file` and its description, a text.

        `FILE.onnx:NAME` is the value NAME of the graph in FILE.onnx, which need not be an output.
        """
        name = None
        if found := _WITH_OUTPUT.fullmatch(str(file)):  # before a name such as /pool/Mul_output_0
            file, name = found[1], found[2]
        path = local(file, argument)
        described = parse(text, argument, kinds, RESIZING)
        if name is not None:
            if described.output_name is not None:
                raise UserError(
                    f"`{argument}` names the output twice, {name} and {described.output_name}; "
                    "name it once."
                )
            described = replace(described, output_name=name)
        what = {"judges": "judge", "au_reader": "AU reader"}.get(argument, argument)
        return self.network(path, described, what, kinds)


@dataclass(frozen=True)
class Judge:
    """A classifier, whose scores are those of the classes in `scheme`.

    `mapping` says what its classes are in the scheme `target`, where their names do not.
    """

    network: ImageNetwork
    scheme: str
    mapping: label_schemes.Mapped = field(default_factory=dict[str, Mapping[str, float]])
    target: str = ""

    def __post_init__(self) -> None:
        found = self.network.size
        names = label_schemes.scheme(self.scheme)
        if found != len(names):
            raise UserError(
                f"{self.network.path} has {found} scores, {self.scheme} has {len(names)} classes; "
                "give its label scheme, with - for each score that is not an expression."
            )

    @cached_property
    def columns(self) -> list[int]:
        """The indices of the scores that are expressions."""
        names = label_schemes.scheme(self.scheme)
        return [i for i, name in enumerate(names) if label_schemes.is_expression(name)]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The expressions that it tells apart, by its own names."""
        names = label_schemes.scheme(self.scheme)
        return tuple(names[i] for i in self.columns)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The expressions that it reads: its own, or those of `target` that they are."""
        if not self.mapping:
            return self.names
        return label_schemes.reached(self.scheme, self.target, self.mapping)

    def read(self, images: np.ndarray) -> np.ndarray:
        """The index into `classes` of each image's likeliest one, int64 [n]."""
        if not self.mapping:
            return self.network(images)[:, self.columns].argmax(1)
        shares, own = np.exp(self.log_probabilities(images)), label_schemes.listed(self.names)
        return label_schemes.mapped(shares, own, self.target, self.mapping).argmax(1)

    def check(self, images: np.ndarray) -> None:
        """Raise UserError if the scores of images float32 [n, 3, H, W] are not as described."""
        scores = self.network(images)
        said = self.network.described.output
        sound = any(map(_are_distributions, (scores, scores[:, self.columns])))
        if sound != (said == "probabilities"):
            other = "logits" if said == "probabilities" else "probabilities"
            raise UserError(
                f"{self.network.path} is described as giving {said}, but its scores "
                f"{'add' if sound else 'do not add'} up to 1; write {other} in its description."
            )

    def log_probabilities(self, images: np.ndarray) -> np.ndarray:
        """The logarithms of the probabilities of `names`, float64 [n, names]."""
        scores = self.network(images)[:, self.columns].astype(np.float64)
        if self.network.described.output == "probabilities":
            scores = np.log(scores.clip(_LEAST_PROBABILITY))
        scores -= scores.max(1, keepdims=True)
        return scores - np.log(np.exp(scores).sum(1, keepdims=True))


def _are_distributions(scores: np.ndarray) -> bool:
    return bool((scores >= -_OFF).all() and (abs(scores.sum(1) - 1) <= _OFF).all())


@dataclass(frozen=True)
class AUReader:
    """A network that reads the action units `units`; "-" is an output that is none."""

    network: ImageNetwork
    units: tuple[str, ...]

    def __post_init__(self) -> None:
        found = self.network.size
        if found != len(self.units):
            raise UserError(
                f"{self.network.path} has {found} outputs, and {len(self.units)} action units are "
                "named; name as many, with - for each output that is none."
            )

    def read(self, images: np.ndarray) -> np.ndarray:
        """Intensities [n, units] in [0, 1]."""
        scores = self.network(images)
        if self.network.described.output == "logits":
            scores = 1 / (1 + np.exp(-scores.astype(np.float64)))
        return scores.clip(0, 1)


def units_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """The action units of `au_reader`: a vocabulary of facs.py, or names, in a text with commas.

    Raises UserError for a name that is no action unit, and for one that is named twice.
    """
    if isinstance(given, str) and given in facs.VOCABULARIES:
        return facs.VOCABULARIES[given]
    names = tuple(
        str(name).strip() for name in (given.split(",") if isinstance(given, str) else given)
    )
    for name in names:
        if name != _NO_UNIT and name not in facs.ACTION_UNITS:
            raise UserError(
                f"`au_reader` names {name!r}, which is no action unit; the nearest is "
                f"{nearest(name, facs.ACTION_UNITS)}, and vocabularies are "
                f"{', '.join(facs.VOCABULARIES)}."
            )
    known = [name for name in names if name != _NO_UNIT]
    if len(set(known)) < len(known):
        raise UserError("`au_reader` names an action unit twice; name each once.")
    return names


def own_features(bundle: Bundle, opener: Opener) -> ImageNetwork | None:
    """The features of a bundle's AU reader, else of its first classifier; None if it has neither.

    They are what the last matrix product of the engine reads.
    """
    for name in (AU_READER, *bundle.classifiers):
        if name in bundle.engines:
            file = bundle.path / bundle.engines[name].file
            if value := onnx_file.last_product(onnx_file.read(file)):
                return _of_engine(bundle, name, value, FEATURES, opener)
    return None


def own_au_reader(bundle: Bundle, opener: Opener) -> AUReader | None:
    """The AU reader of a bundle; None if it has none."""
    if AU_READER not in bundle.engines:
        return None
    network = _of_engine(bundle, AU_READER, "aus", INTENSITIES, opener)
    return None if network is None else AUReader(network, bundle.au_names)


def own_classifiers(bundle: Bundle, opener: Opener) -> dict[str, Judge]:
    """The classifiers of a bundle by the names of their votes."""
    found: dict[str, Judge] = {}
    for name, head in bundle.heads:
        if name in bundle.classifiers:
            network = _of_engine(bundle, name, head.output, SCORES[::-1], opener)
            if network is not None:
                found[head.annotator] = Judge(network, head.label_scheme)
    return found


def _of_engine(
    bundle: Bundle, name: str, output: str, kinds: tuple[str, ...], opener: Opener
) -> ImageNetwork | None:
    """An engine that reads images; None if they are not square."""
    height, width = bundle.default_size
    if height != width:
        return None
    described = Description(height, "rgb", (0.0,) * 3, (1.0,) * 3, kinds[0], output)
    return opener.network(bundle.path / bundle.engines[name].file, described, name, kinds)
