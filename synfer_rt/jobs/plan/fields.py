"""The fields of a plan file, checked against the bundle before anything is loaded or written."""

from __future__ import annotations

import re

from synfer_rt.bundle import Bundle
from synfer_rt.data import writers
from synfer_rt.data.image_format import PNG, ImageFormat, image_format
from synfer_rt.errors import UserError, nearest
from synfer_rt.jobs.plan.aus import aus_of
from synfer_rt.jobs.plan.classes import labels_of
from synfer_rt.jobs.plan.document import Document
from synfer_rt.jobs.plan.plan import Plan
from synfer_rt.jobs.plan.prompts import check_labels_differ, prompt_of
from synfer_rt.jobs.plan.values import Values
from synfer_rt.jobs.sample_settings import SampleSettings
from synfer_rt.sampling.planned_requests import Distributions

_DEFAULT_COUNT = 256
_OWN = (
    *("count", "classes", "attributes", "splits", "format", "image_format", "image_quality"),
    *("shard_size", "out"),
)
KEYS = (*_OWN, *SampleSettings.__annotations__)
"""What a plan may say: its own fields, and the settings of `Model.sample`."""
_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")


def plan_of(document: Document, bundle: Bundle) -> Plan:
    """The plan that a document describes. Raises UserError with the file and the line."""
    values = Values(document, bundle)
    given = values.given
    values.known("", (), KEYS)
    labels, counts = labels_of(values)
    template, attributes = prompt_of(values)
    aus = aus_of(values, labels)
    keeps = _check_photos(values)
    if not keeps:
        check_labels_differ(values, labels, template, aus)
    for key in ("seed", "budget"):
        if given.get(key) is not None:
            values.whole(key, 0, least=0)
    if attributes and template is None and "layout_from" in given:
        values.stop(("attributes",), "photos need a 'prompt' with the attributes; add it.")
    settings = {key: values.setting(key) for key in given if key not in _OWN}
    settings |= {"labels": "all" if keeps else list(labels), "aus": None}
    if template is not None:
        settings["prompt"] = None
    drawn = Distributions(counts, attributes, template, aus)
    format, out = given.get("format", writers.FORMATS[0]), given.get("out")
    if format not in writers.FORMATS:
        near = nearest(str(format), writers.FORMATS)
        values.stop(("format",), f"unknown format {format!r}; the nearest is {near}.")
    return Plan(
        document,
        settings,
        None if drawn == Distributions() else drawn,
        sum(counts.values()) or values.whole("count", _DEFAULT_COUNT),
        format,
        values.whole("shard_size", writers.SHARD_SIZE),
        None if out is None else values.path(("out",), out),
        _splits(values),
        notes=tuple(dict.fromkeys(values.notes)),
        image_format=_image_format(values),
    )


def _image_format(values: Values) -> ImageFormat:
    given = values.given
    name, quality = given.get("image_format"), given.get("image_quality")
    try:
        return image_format(PNG.name if name is None else name, quality)
    except UserError as error:
        text = str(error).replace("`", "'")
        key = "image_quality" if text.startswith("'image_quality'") else "image_format"
        values.stop((key,), text)


def _check_photos(values: Values) -> bool:
    """Whether the photos' own labels are requested. Raises UserError beside what says the same."""
    given = values.given
    keeps = given.get("keep_label") is True
    for key in ("labels", "classes"):
        if keeps and given.get(key) not in (None, "all"):
            values.stop((key,), f"'{key}' and 'keep_label' exclude each other; leave one out.")
    if given.get("aus") is not None and given.get("aus_from") is not None:
        values.stop(("aus",), "'aus' and 'aus_from' exclude each other; leave one out.")
    return keeps


def _splits(values: Values) -> dict[str, float] | None:
    """The weights of the splits by their names."""
    if values.given.get("splits") is None:
        return None
    names = values.mapping(("splits",), "{train: 0.9, validation: 0.1}")
    if "layout_from" in values.given:
        values.stop(
            ("splits",),
            "which photos show the same person is not known, so 'layout_from' cannot be split; "
            "write a plan with its own photos for each split.",
        )
    for name in names:
        if not _SPLIT.match(name):
            place = ("splits", name)
            values.stop(place, f"a split's name must be letters and digits, got {name!r}.")
        if not values.weight(("splits", name), f"the share of {name}"):
            values.stop(("splits", name), f"the share of {name} is 0; leave it out.")
    layout = values.given.get("layout") or values.bundle.defaults.layout
    if layout == "bank" and len(bank := values.bundle.layouts) < len(names):
        faces = f"the bundle has {len(bank)} faces to start from, fewer than splits"
        values.stop(("splits",), f"{faces}; write 'layout: none'.")
    return {name: float(share) for name, share in names.items()}
