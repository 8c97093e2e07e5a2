"""What a line of `label`'s table says: the same fields, of the same types, in every line.

So tables load together, whatever their images are, as the records of runs do (`record.py`): what
does not apply to an image is said by an empty text, 0 or false in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synfer_rt.vocabulary.facs import OPENGRAPHAU_41

if TYPE_CHECKING:
    from synfer_rt.judging.annotators import Annotators

NOT_READ = -1.0
"""An action unit of which nothing says whether the face shows it: 0 would say that it does not."""


def blank(ensemble: Annotators) -> dict[str, Any]:
    """A line that says nothing of an image, with all fields in their order.

    `asked` is whether there was anything that could be accepted: of an image without a label there
    is nothing to check, unless a share or a threshold selects the confident ones.
    """
    bundle = ensemble.bundle
    return {
        "index": 0,
        "file_name": "",
        "label": "",
        "asked": False,
        "accepted": False,
        "rectified": False,
        "given_label": "",
        "written_label": "",
        "label_problem": "",
        "error": "",
        "label_scheme": bundle.label_scheme,
        "bundle": bundle.bundle_hash,
        "backend": ensemble.sampler.backend,
        "probabilities": dict.fromkeys(bundle.classes, 0.0),
        "votes": dict.fromkeys(ensemble.members, ""),
        "aus": dict.fromkeys(bundle.au_names or OPENGRAPHAU_41, NOT_READ),
    }


def is_line(found: Any, index: int, form: dict[str, Any]) -> bool:
    """Whether JSON is line `index` of a table whose blank line is `form`."""
    return (
        _is_alike(found, form)
        and found["index"] == index
        and found["file_name"] != ""
        and (found["error"] != "" or found["label"] in found["probabilities"])
    )


def _is_alike(value: Any, known: Any) -> bool:
    """Whether a value has the type of another, and its fields theirs."""
    if not isinstance(known, dict):
        return type(value) is type(known)
    return (
        isinstance(value, dict)
        and value.keys() == known.keys()
        and all(_is_alike(value[name], field) for name, field in known.items())
    )


def cells(line: dict[str, Any]) -> dict[str, Any]:
    """A line as the row of a CSV file: a column for each class, vote and action unit."""
    votes = {f"vote.{name}": label for name, label in line["votes"].items()}
    plain = {name: value for name, value in line.items() if not isinstance(value, dict)}
    return {**plain, **line["probabilities"], **votes, **line["aus"]}
