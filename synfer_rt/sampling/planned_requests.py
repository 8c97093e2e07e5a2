"""Requests whose classes, attributes and action units follow given distributions.

As of all requests, everything follows from the seed and the index (`requests.py`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from synfer_rt.diffusion import noise
from synfer_rt.sampling import au_distributions
from synfer_rt.sampling.apportionment import turns
from synfer_rt.sampling.au_distributions import AuDistribution
from synfer_rt.sampling.photo_facts import PLAN
from synfer_rt.sampling.requests import DRAWS, Request, Requests, for_synonyms
from synfer_rt.sampling.splits import Split
from synfer_rt.vocabulary import prompts
from synfer_rt.vocabulary.prompt_templates import (
    KNOWN,
    OF_A_PERSON,
    OF_THE_LABEL,
    PERSON,
    Template,
)

_BY_FACE = OF_A_PERSON
"""Attributes by which a start face is chosen, in the order in which `prompts.draw` draws them."""


@dataclass(frozen=True)
class Distributions:
    """What the requests of a run are drawn from.

    `counts` has the images of each label, whose order in the run is that of `apportionment.turns`;
    without any the labels take turns. `attributes` has the weights of the words of each attribute.
    `template` says the prompt with their names in braces, None draws sentences that name them.
    `aus` has the distribution of each label whose AUs are not drawn from its prototypes. Start
    faces are those of the `split` that the run is.
    """

    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    attributes: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict[str, Mapping[str, float]]
    )
    template: Template | None = None
    aus: Mapping[str, AuDistribution] = field(default_factory=dict[str, AuDistribution])
    split: Split | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The distributions as JSON values."""
        return {
            "class_counts": dict(self.counts),
            "template": None if self.template is None else self.template.text,
            "attributes": {name: dict(words) for name, words in self.attributes.items()},
            "au_distributions": self._au_settings(),
            **({} if self.split is None else self.split.settings),
        }

    def _au_settings(self) -> list[dict[str, Any]]:
        """The labels of each distribution, which may have many rows, with the distribution."""
        labels: dict[int, list[str]] = {}
        for label, aus in self.aus.items():
            labels.setdefault(id(aus), []).append(label)
        each = {id(aus): aus for aus in self.aus.values()}
        return [{"labels": named, **each[number].settings} for number, named in labels.items()]

    def of(self, requests: Requests) -> PlannedRequests:
        """`requests` with these distributions instead of their own."""
        own = {each.name: getattr(requests, each.name) for each in fields(Requests)}
        return PlannedRequests(**own, drawn_from=self)


@dataclass(frozen=True)
class PlannedRequests(Requests):
    """The requests of a run that are drawn from `drawn_from`; `Distributions.of` makes them."""

    drawn_from: Distributions = field(default_factory=Distributions)

    def of(self, indices: Sequence[int], labels: Sequence[str] | None = None) -> list[Request]:
        """The requests of several samples, by default with the labels whose turn it is."""
        if labels is None and len(self._turns):
            places = np.array(indices, np.int64) % len(self._turns)
            turn: list[int] = self._turns[places].tolist()
            labels = [self.labels[number] for number in turn]
        return super().of(indices, labels)

    @property
    def further_draws(self) -> int:
        """One for each attribute after those for the AUs."""
        return au_distributions.DRAWS + len(self.drawn_from.attributes)

    @property
    def nothing_is_drawn(self) -> bool:
        """Whether photo and label alone decide a request; a template's words are drawn."""
        return super().nothing_is_drawn and self.drawn_from.template is None

    @property
    def given_prompts(self) -> list[str]:
        """Prompts in which each word of each attribute is."""
        template = self.drawn_from.template
        if template is None:
            return super().given_prompts
        words = {name: list(weights) for name, weights in self.drawn_from.attributes.items()}
        texts: list[str] = []
        for i in range(max(map(len, words.values()), default=1)):
            chosen = {name: each[i % len(each)] for name, each in words.items()}
            implied = self._implied(self.labels[i % len(self.labels)], chosen, (0.0, 0.0, 0.0))
            texts.append(template.fill({**chosen, **implied}))
        return texts

    @property
    def settings(self) -> dict[str, Any]:
        """The distributions as JSON values."""
        return {**super().settings, **self.drawn_from.settings}

    def chosen(self, indices: Sequence[int]) -> list[dict[str, str]]:
        """The words of the attributes of several samples."""
        keys = [(self.seed, index) for index in indices]
        draws = noise.uniforms(keys, DRAWS + self.further_draws, "request").tolist()
        return [self._words(uniforms) for uniforms in draws]

    @cached_property
    def _turns(self) -> np.ndarray:
        return turns([self.drawn_from.counts.get(label, 0) for label in self.labels])

    @cached_property
    def _edges(self) -> Mapping[str, tuple[tuple[str, ...], tuple[float, ...]]]:
        """The words of each attribute, and where the parts of [0, 1) end that belong to them."""
        found: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {}
        for name, weights in self.drawn_from.attributes.items():
            ends = tuple(accumulate(weights.values()))
            found[name] = tuple(weights), tuple(end / ends[-1] for end in ends)
        return found

    def _words(self, uniforms: Sequence[float]) -> dict[str, str]:
        first = DRAWS + au_distributions.DRAWS
        return {
            name: words[bisect_right(edges, u)]
            for (name, (words, edges)), u in zip(self._edges.items(), uniforms[first:], strict=True)
        }

    def _caption(self, index: int) -> tuple[str, None] | None:
        """The prompt that the photo of the sample says, unless a template says it."""
        return super()._caption(index) if self.drawn_from.template is None else None

    def _described(
        self, label: str, uniforms: Sequence[float]
    ) -> tuple[str, prompts.Attributes | None]:
        words, template = self._words(uniforms), self.drawn_from.template
        if template is not None:
            prompt = template.fill({**words, **self._implied(label, words, for_synonyms(uniforms))})
            face = {name: words[name] for name in _BY_FACE if words.get(name) in KNOWN[name]}
            return prompt, prompts.Attributes(**{"age": "", "gender": "", **face}) if face else None
        if self.prompt is not None or self.photos:
            return super()._described(label, uniforms)
        return self._sentence(label, uniforms, words)

    def _implied(
        self, label: str, words: Mapping[str, str], synonyms: Sequence[float]
    ) -> dict[str, str]:
        """The words of the placeholders that follow from the label and from other words."""
        known = prompts.expression_words(label)
        said = known[int(synonyms[-1] * len(known))]
        implied: dict[str, str] = dict(zip(OF_THE_LABEL, (said, label), strict=True))
        if self.drawn_from.template is not None and PERSON in self.drawn_from.template.names:
            age, gender, ancestry = (words[name] for name in _BY_FACE)
            implied[PERSON] = prompts.person(age, gender, ancestry, synonyms)
        return implied

    def _sentence(
        self, label: str, uniforms: Sequence[float], words: Mapping[str, str]
    ) -> tuple[str, prompts.Attributes]:
        """A drawn sentence that names `words`."""
        numbers = list(uniforms)
        for place, name in enumerate(_BY_FACE):
            if name in words:  # hair and beard are drawn to fit them
                options = KNOWN[name]
                numbers[place] = (options.index(words[name]) + 0.5) / len(options)
        attributes = prompts.draw(numbers[: prompts.DRAWS])
        attributes = replace(attributes, **{n: w for n, w in words.items() if n not in _BY_FACE})
        return prompts.describe(attributes, label, for_synonyms(numbers)), attributes

    def _aus(self, label: str, uniforms: Sequence[float]) -> Mapping[str, float]:
        distribution = self.drawn_from.aus.get(label)
        if distribution is None:
            return super()._aus(label, uniforms)
        drawn = distribution.draw(uniforms[DRAWS : DRAWS + au_distributions.DRAWS])
        return self._as_known(drawn)

    def _aus_source(self, request: Request) -> str:
        if request.label in self.drawn_from.aus:
            return PLAN
        return super()._aus_source(request)

    def _layout(
        self, index: int, attributes: prompts.Attributes | None, uniform: float
    ) -> int | None:
        """A photo, or a row of the bank or split: of a face like the one described, if any is."""
        if self.photos or self.bank is None:
            return super()._layout(index, attributes, uniform)
        face = tuple(getattr(attributes, name, "") for name in _BY_FACE)
        if face not in self._alike:
            self._alike[face] = self._rows_like(face) or self._rows
        rows = self._alike[face]
        return rows[int(uniform * len(rows))]

    def _rows_like(self, face: tuple[str, ...]) -> Sequence[int]:
        """The rows whose faces have these words, where a word is given."""
        assert self.bank is not None
        described = [getattr(self.bank, name) for name in _BY_FACE]
        return [
            row
            for row in self._rows
            if all(
                not word or word == words[row] for word, words in zip(face, described, strict=True)
            )
        ]

    @cached_property
    def _rows(self) -> Sequence[int]:
        assert self.bank is not None
        split = self.drawn_from.split
        return range(len(self.bank)) if split is None else split.rows(self.bank)

    @cached_property
    def _alike(self) -> dict[tuple[str, ...], Sequence[int]]:
        """Rows by the words that describe them, as they are asked for."""
        return {}
