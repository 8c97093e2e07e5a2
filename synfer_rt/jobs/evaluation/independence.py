"""Which networks had a part in a run, and so cannot judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from synfer_rt.bundle import Bundle
from synfer_rt.bundle.engine_specs import DISTILLED, REUSING
from synfer_rt.bundle.files import file_entry
from synfer_rt.errors import UserError
from synfer_rt.jobs.evaluation.networks import Judge, Opener, own_classifiers
from synfer_rt.judging.annotators import AU_READER
from synfer_rt.networks import onnx_file
from synfer_rt.networks.image_network import ImageNetwork
from synfer_rt.networks.weights import SAME, fingerprints, shared
from synfer_rt.sampling.guidance import engine_name

_SAME_ANSWERS = 0.1
"""How far answers of one network may be apart, relative to their length: int8 rounds them."""
_SHARED = 3
"""The fewest classes that two networks must share to be told apart by their answers."""
_LEAST_LOGARITHM = -16.0
"""About the least logarithm of a probability in float16."""


def hashes_of(bundle: Bundle) -> set[str]:
    """The hashes by which runs name a bundle, whichever of its engines made their images."""
    others = product((None, DISTILLED), (None, REUSING))
    found = {bundle.hash_with(*filter(None, names)) for names in others}
    return found | {bundle.former_hash}


class Parts:
    """What the networks of a bundle did in a run with these settings.

    Annotators label every image. A guide has a part only in a run with its form of guidance.
    """

    def __init__(self, bundle: Bundle, settings: Mapping[str, Any]) -> None:
        self._bundle = bundle
        self.acted = dict.fromkeys(bundle.annotators, "labelled")
        guidance: Mapping[str, Any] | None = settings.get("semantic_guidance")
        if guidance and (guide := engine_name(guidance["form"])) in bundle.engines:
            self.acted[guide] = "guided"

    @cached_property
    def _of_acted(self) -> dict[str, dict[str, int]]:
        return {name: self._weights(name) for name in self.acted}

    def _weights(self, engine: str) -> dict[str, int]:
        file = self._bundle.path / self._bundle.engines[engine].file
        return fingerprints(onnx_file.read(file).weights())

    def shares(self, network: ImageNetwork) -> dict[str, float]:
        """The share of a network's weights that each engine that acted holds too, if any."""
        own = fingerprints(network.file.weights())
        found = {name: shared(own, theirs) for name, theirs in self._of_acted.items()}
        return {name: share for name, share in found.items() if share}

    def _is_idle(self, network: ImageNetwork) -> bool:
        """Whether an engine that reads images or guides, but not in this run, has its weights."""
        own = fingerprints(network.file.weights())
        engines = self._bundle.engines
        idle = [n for n in engines if n == AU_READER or n.startswith("guide.")]
        return any(
            shared(own, self._weights(name)) >= SAME for name in idle if name not in self.acted
        )

    def part_of(self, network: ImageNetwork) -> str | None:
        """What a network did in the run, as the end of a sentence; None if it had no part in it.

        It had one if an engine that acted has its weights, and also if the bundle was built from
        its file, unless an engine that did not act has its weights.
        """
        shares = self.shares(network)
        for name, share in shares.items():
            if share >= SAME:
                return (
                    f"{share:.0%} of its weights are those of {name}, which {self.acted[name]} "
                    "this run"
                )
        sha256 = file_entry(network.path)["sha256"]
        source: Mapping[str, Any] = self._bundle.manifest["source"] or {}
        for name, known in source.get("sha256", {}).items():
            if known == sha256 and not self._is_idle(network):
                return f"it is {name}, from which {self._bundle.name} was built"
        return None

    def refuse_judge(self, judge: Judge, images: np.ndarray, opener: Opener) -> None:
        """Raise UserError for a classifier that labelled or guided the run.

        Also one that answers as an annotator does, of some `images` of the run: its weights may
        have been folded or rounded.
        """
        self.refuse(judge.network, "one of `judges`")
        for name, annotator in own_classifiers(self._bundle, opener).items():
            if same_answers(judge, annotator, images):
                raise UserError(
                    f"{judge.network.path} cannot be one of `judges`: it answers as {name} does, "
                    "which labelled this run; give a network that had no part in it."
                )

    def refuse(self, network: ImageNetwork, role: str) -> None:
        """Raise UserError for a network that labelled or guided the run, by its weights."""
        if (part := self.part_of(network)) is not None:
            raise UserError(
                f"{network.path} cannot be {role}: {part}; give a network that had no part in it."
            )


def same_answers(one: Judge, other: Judge, images: np.ndarray) -> bool:
    """Whether two classifiers say nearly the same of images float32 [n, 3, H, W].

    What they say are logarithms of probabilities of the classes that both know, less their mean in
    each image. Networks that were trained apart differ in these by about as much as they are long,
    however well they agree on the best class. They are also shown each image mixed with another,
    of which neither is sure.
    """
    images = np.concatenate([images, (images + np.roll(images, 1, 0)) / 2])
    shared = [name for name in one.names if name in other.names]
    if len(shared) < _SHARED:
        return False
    a, b = (
        judge.log_probabilities(images)[:, [judge.names.index(name) for name in shared]].clip(
            _LEAST_LOGARITHM
        )
        for judge in (one, other)
    )
    a, b = (rows - rows.mean(1, keepdims=True) for rows in (a, b))
    apart = np.linalg.norm(a - b)
    return bool(apart <= _SAME_ANSWERS * max(np.linalg.norm(a), np.linalg.norm(b)))


def not_comparable(networks: Sequence[ImageNetwork]) -> list[str]:
    """The files whose weights cannot be told from others: too few, or none of floating point."""
    return [n.path.name for n in networks if not fingerprints(n.file.weights())]
