"""The classes of a plan: which labels it requests, and how many images of each."""

from __future__ import annotations

from collections.abc import Mapping

from synfer_rt.errors import UserError, nearest
from synfer_rt.jobs.plan.document import Place
from synfer_rt.jobs.plan.tables import read_words
from synfer_rt.jobs.plan.values import Values
from synfer_rt.sampling.apportionment import apportion
from synfer_rt.vocabulary.class_counts import CLASS_COUNTS
from synfer_rt.vocabulary.expressions import choose_labels

MOST_IMAGES = 10_000_000
"""The most images of a plan with class counts, whose order is computed before it begins."""


def labels_of(values: Values) -> tuple[tuple[str, ...], dict[str, int]]:
    """The labels, and the images of each; no numbers if the labels take turns."""
    if "classes" not in values.given:
        labels = values.given.get("labels", "all")
        try:
            return choose_labels(labels, values.bundle.classes), {}
        except UserError as error:
            return values.stop(("labels",), str(error).replace("`", "'"))
    example = "{shares: affectnet-8} or {counts: {happy: 500, sad: 300}}"
    classes = values.mapping(("classes",), example)
    values.known(" of classes", ("classes",), ("shares", "counts"))
    if "labels" in values.given or len(classes) > 1:
        other = "'labels'" if "labels" in values.given else "'counts'"
        values.stop(("classes",), f"'classes' and {other} say the same; leave one out.")
    (kind,) = classes
    place = ("classes", kind)
    weights = _class_weights(values, place)
    if kind == "shares":
        if "count" not in values.given:
            values.stop(place, "shares need the number of images; add 'count'.")
        numbers = apportion(values.whole("count", 1), list(weights.values()))
    else:
        numbers = [_count_of(values, place, *item) for item in weights.items()]
        if "count" in values.given:
            values.stop(("count",), "the counts say how many images; leave out 'count'.")
    counts = {label: n for label, n in zip(weights, numbers, strict=True) if n}
    if not 0 < sum(counts.values()) <= MOST_IMAGES:
        limit = f"from 1 to {MOST_IMAGES}"
        values.stop(place, f"the images of all classes must be {limit}, got {sum(numbers)}.")
    return tuple(counts), counts


def _count_of(values: Values, place: Place, label: str, number: float) -> int:
    if number != int(number):
        values.stop(
            place,
            f"the count of {label} must be a whole number, got {number:g}; write 'shares' for "
            "parts of 'count'.",
        )
    return int(number)


def _class_weights(values: Values, place: Place) -> dict[str, float]:
    """A number for each label: of a known set, of a table, or as they are written."""
    value = values.at(place)
    if isinstance(value, str):
        if value not in CLASS_COUNTS:
            near = nearest(value, CLASS_COUNTS)
            values.stop(place, f"unknown set {value!r}; the nearest is {near}.")
        written: Mapping[str, float] = CLASS_COUNTS[value]
    elif isinstance(value, dict) and "csv" in value:
        written = _table_labels(values, place)
    else:
        example = "affectnet-8, {happy: 3, sad: 1} or {csv: FILE, column: NAME}"
        written = {
            label: values.weight((*place, label), f"the number of {label}")
            for label in values.mapping(place, example)
        }
    found: dict[str, float] = {}
    for name, number in written.items():
        at = (*place, name) if isinstance(value, dict) else place
        label = values.label(at, name)
        if label in found:
            values.stop(at, f"{label} is there twice; write it once.")
        found[label] = number
    if not any(found.values()):
        values.stop(place, "all numbers are 0; raise one.")
    return found


def _table_labels(values: Values, place: Place) -> dict[str, float]:
    words, lines = read_words(*values.column(place))
    found: dict[str, float] = {}
    for word, number in words.items():
        if label := values.table_label(place, lines[word], word):
            found[label] = found.get(label, 0) + number
    return found
