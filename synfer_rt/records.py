"""What a dataset says of an image: the fields of its record.

The tables below are the one place of the fields. Blank records, the schema of Parquet and the
tables of the documentation follow from them (`python -m synfer_rt.records` prints the latter).

Every record has every field, of the same type. Readers take a dataset's columns and their types
from its first records, and cannot join a column of nulls with one of numbers. So a field that does
not apply holds its empty value: 0, false, an empty text or -1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from synfer_rt.bundle import Bundle
from synfer_rt.vocabulary.facs import OPENGRAPHAU_41, au_intensities

Record = dict[str, Any]
"""A record or a line: values by field, as in JSON."""
Scalar = str | bool | int | float
Value = Scalar | dict[str, Scalar]
ARROW = {str: "string", bool: "bool", int: "int64", float: "float64"}
"""Arrow's names of the types of values."""

SAMPLED, ORIGINAL, AUGMENTED = "sampled", "original", "augmented"
"""The values of `origin`: made by `sample`; kept and added by `augment`."""
CORESET = "coreset_method"
"""The setting that core-sets have, and no other output."""

_ENCODER = json.JSONEncoder(ensure_ascii=False)
CLASS, UNIT, ANNOTATOR = "class", "action unit", "annotator"
"""What a field may have a value for each of."""
_ANY, _MADE = (SAMPLED, ORIGINAL, AUGMENTED), (SAMPLED, AUGMENTED)


@dataclass(frozen=True)
class Field:
    """A field of a record, or of a line of `label` (label_lines.py).

    `empty` is its value where it does not apply, and has its type; `filled_for` are the origins
    (of a record) or the kinds (of a line) to which it applies. A field with `each` has a value for
    each class, action unit or annotator; in CSV each is a column, whose name begins with `prefix`.
    """

    name: str
    empty: Value
    filled_for: tuple[str, ...]
    meaning: str
    each: str = ""
    prefix: str = ""

    def blank(self, names: Mapping[str, Sequence[str]]) -> Value:
        """The field where it does not apply; `names` are those of classes, units and annotators."""
        if isinstance(self.empty, dict):
            return self.empty.copy()
        return dict.fromkeys(names[self.each], self.empty) if self.each else self.empty

    @property
    def type(self) -> str:
        """Arrow's name of the type, in words where it is a struct."""
        if isinstance(self.empty, dict):
            parts = (f"`{name}` {ARROW[type(x)]}" for name, x in self.empty.items())
            return f"struct of {', '.join(parts)}"
        return ARROW[type(self.empty)] + (f" for each {self.each}" if self.each else "")


FILE_NAME = Field("file_name", "", _ANY, "the image's file, relative to the output")
"""The first field of every record, which the writer fills in."""

RECORD = (
    Field("index", 0, _ANY, "the image's number in the output, from 0"),
    Field("seed", 0, _ANY, "the run's seed; seed and index decide all random draws"),
    Field("requested_label", "", _ANY, "the expression that was requested"),
    Field(
        "label",
        "",
        _ANY,
        "the label to train with: the requested one, or the vote's if `rectified` is true",
    ),
    Field(
        "label_scheme",
        "",
        _ANY,
        "the order of the classes, in which webdataset's `.cls` counts from 0",
    ),
    Field(
        "probabilities",
        0.0,
        _MADE,
        "the vote's average distribution; all zeros if the bundle has no annotators",
        each=CLASS,
    ),
    Field("rectified", False, (SAMPLED,), "whether the vote replaced the requested label"),
    Field("accepted", False, _ANY, "whether to keep the image"),
    Field("prompt", "", _MADE, "the prompt, as given or drawn"),
    Field("negative_prompt", "", _MADE, "the negative prompt"),
    Field(
        "aus",
        0.0,
        _MADE,
        "intensities in 0 to 1 as the model was given them; of a model without action units all "
        "zeros, by the names of OpenGraphAU",
        each=UNIT,
    ),
    Field("guidance", 0.0, _MADE, "the scale of classifier-free guidance, 1 or more"),
    Field(
        "guidance_interval",
        {"low": 0.0, "high": 0.0},
        (SAMPLED,),
        "guidance acts in steps that start at a noise level above `low` and at most `high`; 0 is "
        "no limit",
    ),
    Field("au_scale", 0.0, _MADE, "the scale of the action units"),
    Field("quality", "", _MADE, "`best`, or `fast`: made by the bundle's distilled denoiser"),
    Field("solver", "", _MADE, "the solver that removed the noise"),
    Field("steps", 0, _MADE, "the number of its steps"),
    Field(
        "timesteps",
        "",
        (SAMPLED,),
        "the timesteps of the steps, with commas between, if they were given",
    ),
    Field("eta", 0.0, (SAMPLED,), "the share of fresh noise of the solver `tcd`"),
    Field(
        "cache_every",
        0,
        (SAMPLED,),
        "1 if every step computed the whole UNet, N if of the guided steps only every N-th did",
    ),
    Field(
        "layout",
        -1,
        (SAMPLED,),
        "the start face: its number in the bundle's bank or among the photos; -1 is none",
    ),
    Field("layout_strength", 0.0, _MADE, "the part of the noise schedule that was run, up to 1"),
    Field(
        "semantic_guidance",
        {"form": "", "strength": 0.0, "start": 0.0, "every": 0},
        (SAMPLED,),
        "how a classifier's gradient steered the image",
    ),
    Field("origin", SAMPLED, _ANY, "`sampled`; of `augment`, `original` or `augmented`"),
    Field("source", "", _ANY, "the photo that was the start face, or the original image's file"),
    Field("source_sha256", "", (SAMPLED,), "the SHA-256 of that photo"),
    Field("noise_scale", 0.0, (AUGMENTED,), "the scale of the noise around the posterior's mean"),
    Field("attempt", 0, (AUGMENTED,), "the attempt that made the image, from 0"),
    Field(
        "bundle",
        "",
        _ANY,
        "the bundle's hash: of all that an image depends on, not of compiled plans, whose bytes "
        "differ between builds",
    ),
    Field(
        "backend",
        "",
        _ANY,
        "the backend that computed the image; empty for an original that keeps its pixels",
    ),
)
"""The fields of a dataset's records, after `file_name`."""

OF_PHOTOS = (
    Field(
        "label_source",
        "",
        (SAMPLED,),
        "where the requested label comes from: the `photo`, or the `request` of the run",
    ),
    Field(
        "aus_source",
        "",
        (SAMPLED,),
        "where the action units come from: the `photo`'s table, the AU `reader`, the label's "
        "`prototype`, a `plan`, or the `request` of the run",
    ),
)
"""Further fields, of runs that start from a dataset of photos; others have no such columns."""

OF_CORESETS = (
    Field(
        "run_index",
        -1,
        _ANY,
        "the image's number in the run that made it; seed and this number decide all random draws",
    ),
    Field(
        "coreset_rank",
        -1,
        _ANY,
        "the image's place in the order in which its class was chosen, from 0: those below k are "
        "the core-set of k images of the class",
    ),
)
"""Further fields, of core-sets."""


def set_fields(filled_for: tuple[str, ...]) -> tuple[Field, ...]:
    """The fields about label sets, after the others of a record or line."""
    return (
        Field(
            "label_set",
            False,
            filled_for,
            "whether the class is in the image's label set",
            each=CLASS,
            prefix="set.",
        ),
        Field("coverage", 0.0, filled_for, "the coverage of label sets"),
    )


RECORD_SETS = set_fields((SAMPLED,))
"""Further fields of records that are made with a calibration."""


def fields_of(settings: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields of the records of a run with these settings, in their order but `file_name`."""
    fields = _fields(settings.get("calibration") is not None, "aus_from" in settings)
    return (*fields, *(OF_CORESETS if CORESET in settings else ()))


def _fields(calibrated: bool, of_photos: bool) -> tuple[Field, ...]:
    """The fields of records, which have label sets if `calibrated`, and sources if `of_photos`."""
    return (*RECORD, *(RECORD_SETS if calibrated else ()), *(OF_PHOTOS if of_photos else ()))


def blank_record(
    classes: Sequence[str], units: Sequence[str] | None, fields: Sequence[Field] = RECORD
) -> Record:
    """A record of empty values, with all `fields` in their order but `file_name`.

    `probabilities` has each of the `classes`, `aus` each of the `units`; a model without action
    units has those of OpenGraphAU.
    """
    names = {CLASS: classes, UNIT: units or OPENGRAPHAU_41}
    return {field.name: field.blank(names) for field in fields}


@cache
def _form(
    classes: tuple[str, ...], units: tuple[str, ...], calibrated: bool, of_photos: bool
) -> Record:
    """`blank_record`, made once."""
    return blank_record(classes, units, _fields(calibrated, of_photos))


def record(bundle: Bundle, /, **values: Any) -> Record:
    """The record of an image that `bundle` made; fields without a value, or with None, are empty.

    `aus` may leave out units, as in a request, and `probabilities` classes. With a `label_set` it
    is that of a calibrated run, and with a `label_source` that of a run from a dataset of photos.
    `bundle` is the bundle's hash unless it is given (`Bundle.hash_with`). Raises KeyError for a
    field that records do not have.
    """
    units, of_photos = bundle.au_names or OPENGRAPHAU_41, OF_PHOTOS[0].name in values
    form = _form(bundle.classes, units, values.get("label_set") is not None, of_photos)
    values = {"bundle": bundle.bundle_hash} | values | {"label_scheme": bundle.label_scheme}
    if values.get("aus"):
        values["aus"] = au_intensities(values["aus"], bundle.au_names)
    return filled(form, values)


def filled(form: Mapping[str, Value], values: Mapping[str, Any]) -> Record:
    """The blank record or line `form` with `values`, converted to the types that `form` has.

    None leaves a field as it is. Raises KeyError for a field that `form` does not have.
    """
    fields: Record = dict(form)
    for name, empty in form.items():
        if isinstance(empty, dict):
            parts: Mapping[str, Any] = values.get(name) or {}
            fields[name] = empty | {key: type(empty[key])(part) for key, part in parts.items()}
    for name, value in values.items():
        empty = form[name]
        if value is not None and not isinstance(empty, dict):
            fields[name] = type(empty)(value)
    return fields


def metadata(record: Mapping[str, Any], file_name: str) -> bytes:
    """A record as a dataset holds it in JSON: one line of UTF-8, which begins with `file_name`."""
    return _ENCODER.encode({FILE_NAME.name: file_name, **record}).encode()


def json_object(text: str | bytes) -> Record:
    """The JSON object that `text` is. Raises ValueError for anything else."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return cast(Record, value)


def markdown(fields: Iterable[Field], every: tuple[str, ...] = _ANY) -> str:
    """The documentation's table of fields; those of `every` kind are of every image."""
    rows = ["| field | type | filled in for | otherwise | meaning |", "|---|---|---|---|---|"]
    for field in fields:
        images = "every image" if field.filled_for == every else ", ".join(field.filled_for)
        empty = json.dumps(field.empty)
        rows.append(f"| `{field.name}` | {field.type} | {images} | `{empty}` | {field.meaning} |")
    return "".join(f"{row}\n" for row in rows)


if __name__ == "__main__":
    print(markdown((FILE_NAME, *RECORD)), markdown(RECORD_SETS), sep="\n", end="")
