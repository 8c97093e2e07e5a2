"""The prompt of a plan, and the distributions of the attributes that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from synfer_rt.errors import nearest
from synfer_rt.jobs.plan.document import Place
from synfer_rt.jobs.plan.tables import read_words
from synfer_rt.jobs.plan.values import Values
from synfer_rt.sampling.au_distributions import AuDistribution
from synfer_rt.vocabulary.prompt_templates import (
    KNOWN,
    OF_A_PERSON,
    OF_THE_LABEL,
    PERSON,
    Template,
)


def prompt_of(values: Values) -> tuple[Template | None, dict[str, Mapping[str, float]]]:
    """The template if the prompt is one, and the weights of its attributes' words."""
    prompt = values.given.get("prompt")
    attributes = _attributes(values) if "attributes" in values.given else {}
    if prompt is None:
        for name in attributes:
            _check_of_sentences(values, name, attributes[name])
        return None, attributes
    if not isinstance(prompt, str):
        values.stop(("prompt",), f"a prompt must be a text, got {prompt!r}.")
    template = Template(prompt)
    try:
        names = template.names
    except ValueError as error:
        values.stop(("prompt",), f"{error}; write a brace itself twice, as in {{{{.")
    if not names and not attributes and "{" not in prompt and "}" not in prompt:
        return None, {}
    needed = [name for name in names if name not in (*OF_THE_LABEL, PERSON)]
    if PERSON in names:
        needed += OF_A_PERSON
        for name in OF_A_PERSON:
            _check_known(values, name, attributes.get(name, {}))
    for name in needed:
        if name not in attributes:
            if name not in KNOWN:
                known = (*attributes, *KNOWN, *OF_THE_LABEL, PERSON)
                near = nearest(name, known)
                what = f"nothing says what {{{name}}} is"
                values.stop(
                    ("prompt",), f"{what}; add it to 'attributes'. The nearest known is {near}."
                )
            attributes[name] = dict.fromkeys(KNOWN[name], 1.0)
    for name in attributes:
        if name not in needed:
            place = ("attributes", name)
            values.stop(place, f"the prompt has no {{{name}}}; add it, or leave out {name}.")
    return template, attributes


def _check_of_sentences(values: Values, name: str, words: Mapping[str, float]) -> None:
    """Raise UserError for an attribute that the drawn sentences do not have."""
    place = ("attributes", name)
    if name not in KNOWN:
        known = ", ".join(KNOWN)
        values.stop(
            place, f"drawn sentences have {known}; write a 'prompt' with {{{name}}} for others."
        )
    _check_known(values, name, words)


def _check_known(values: Values, name: str, words: Mapping[str, float]) -> None:
    """Raise UserError for a word that neither drawn sentences nor {person} can say."""
    for word in words:
        if word not in KNOWN[name]:
            near = nearest(word, KNOWN[name])
            values.stop(
                ("attributes", name),
                f"drawn sentences and {{person}} have no {name} {word!r}; the nearest is "
                f"{near!r}. For other words, write a 'prompt' with {{{name}}}.",
            )


def _attributes(values: Values) -> dict[str, Mapping[str, float]]:
    example = "{age: balanced, gender: {female: 3, male: 2}}"
    names = values.mapping(("attributes",), example)
    return {name: _words(values, ("attributes", name), name) for name in names}


def _words(values: Values, place: Place, name: str) -> dict[str, float]:
    """The weights of an attribute's words."""
    value = values.at(place)
    if name in (*OF_THE_LABEL, PERSON):
        values.stop(place, f"{name} follows from others; give the attribute another name.")
    if value == "balanced":
        if name not in KNOWN:
            values.stop(place, f"{name} has no known words; list them, such as [one, two].")
        return dict.fromkeys(KNOWN[name], 1.0)
    if isinstance(value, list):
        words = cast("list[Any]", value)
        if not words or not all(isinstance(word, str) for word in words):
            values.stop(place, f"the words of {name} must be texts, got {words!r}.")
        if len({*words}) < len(words):
            values.stop(place, f"{name} has a word twice; write each once, or give shares.")
        return dict.fromkeys(words, 1.0)
    if isinstance(value, dict) and "csv" in value:
        words, _ = read_words(*values.column(place))
        return {word: float(number) for word, number in words.items()}
    example = "balanced, [one, two], {one: 3, two: 1} or {csv: FILE, column: NAME}"
    found = {
        word: float(values.weight((*place, word), f"the share of {word!r}"))
        for word in values.mapping(place, example)
    }
    if not any(found.values()):
        values.stop(place, "all shares are 0; raise one.")
    return {word: share for word, share in found.items() if share}


def check_labels_differ(
    values: Values,
    labels: Sequence[str],
    template: Template | None,
    aus: Mapping[str, AuDistribution],
) -> None:
    """Raise UserError where a prompt and the AUs leave nothing for several labels to decide."""
    if values.given.get("prompt") is None or len(labels) == 1:
        return
    if template is not None and {*template.names} & {*OF_THE_LABEL}:
        return
    one = aus.get(labels[0])
    alike = one is not None and all(aus.get(label) == one for label in labels)
    if alike or not values.bundle.au_names:
        values.stop(
            ("prompt",),
            "the images of all classes would be alike; write {expression} in the prompt.",
        )
