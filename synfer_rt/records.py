"""What is written beside an image: the same fields, of the same types, in every record of any run.

Readers take a dataset's columns and their types from its first records, and cannot put together a
column that has no type in one run and one that has. So what a run does not do is said by 0, an
empty text or -1, in its place; nothing is null, and nothing is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from synfer_rt.bundle import Bundle
from synfer_rt.vocabulary.facs import OPENGRAPHAU_41, au_intensities

SAMPLED, ORIGINAL, AUGMENTED = "sampled", "original", "augmented"
"""What `origin` says."""


def blank(classes: Sequence[str], units: Sequence[str] | None) -> dict[str, Any]:
    """A record that says nothing, with all fields in their order; `file_name` is the writer's.

    `probabilities` has each of the `classes` and `aus` each of the `units`, for a model without
    action units those of OpenGraphAU.
    """
    return {
        "index": 0,
        "seed": 0,
        "requested_label": "",
        "label": "",
        "label_scheme": "",
        "probabilities": dict.fromkeys(classes, 0.0),
        "rectified": False,
        "accepted": False,
        "prompt": "",
        "negative_prompt": "",
        "aus": dict.fromkeys(units or OPENGRAPHAU_41, 0.0),
        "guidance": 0.0,
        "au_scale": 0.0,
        "solver": "",
        "steps": 0,
        "layout": -1,
        "layout_strength": 0.0,
        "semantic_guidance": {"form": "", "strength": 0.0, "start": 0.0, "every": 0},
        "origin": SAMPLED,
        "source": "",
        "source_sha256": "",
        "noise_scale": 0.0,
        "attempt": 0,
        "bundle": "",
        "backend": "",
    }


def record(bundle: Bundle, **said: Any) -> dict[str, Any]:
    """What `said` says and no more, about an image that `bundle` made.

    Of `aus` the units that are not asked for may be left out, as in a request, and of
    `probabilities` classes; a field that is None says nothing. Raises KeyError for a field that
    records do not have.
    """
    fields = blank(bundle.classes, bundle.au_names)
    fields |= {"label_scheme": bundle.label_scheme, "bundle": bundle.bundle_hash}
    if said.get("aus"):
        said["aus"] = au_intensities(said["aus"], bundle.au_names)
    return filled(fields, said)


def filled(form: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """A blank record, `form`, with what `said` says, in the types that it has there.

    None says nothing. Raises KeyError for a field that `form` does not have.
    """
    fields = dict(form)
    for name, value in said.items():
        known = form[name]
        if isinstance(known, dict):
            fields[name] = known | {key: type(known[key])(x) for key, x in (value or {}).items()}
        elif value is not None:
            fields[name] = type(known)(value)
    return fields
