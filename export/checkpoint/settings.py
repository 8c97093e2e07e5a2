"""synfer.json: the settings of a model that are not in the files of diffusers.

A JSON file beside the adapter with the same name (`au_adapter.json`; for a directory, in it) may
have the adapter's own fields, which take precedence over those of synfer.json:

    au_vocabulary    a key of facs.VOCABULARIES, or a list of names in the order of the AU vector
    au_maximum       the intensity of the strongest AU in the adapter's training: 1, or 5
    activation       between its two linear layers: one of au_adapter.ACTIVATIONS
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synfer_rt.bundle.face_template import read_template
from synfer_rt.bundle.qualities import BEST, QUALITIES
from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.diffusion.solvers import SOLVERS, trajectory
from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.distilled import DISTILLED_FOLDER, read_distilled
from synfer_rt.export.files.au_adapter import ACTIVATIONS, AUAdapter
from synfer_rt.export.files.au_vocabulary import au_names
from synfer_rt.export.files.json_files import check_fields, read_json
from synfer_rt.ranges import LARGEST_SCALE
from synfer_rt.vocabulary import facs, label_schemes
from synfer_rt.vocabulary.scheme_files import given_scheme

SETTINGS_FILE = "synfer.json"

_ADAPTER_FIELDS = ("au_vocabulary", "au_maximum", "activation")
_FIELDS = (
    *("name", "version", "licence", "description", "annotators_know", "images_seen"),
    *("face_template", "label_scheme", "class_labels", "defaults", "distilled", *_ADAPTER_FIELDS),
)
_ALIKE = 0.9
"""From this ratio of difflib on, an unknown field in an adapter's file counts as misspelt."""

_CLASS_LABEL_PARTS = ("pooled_text", "aus")
_VOCABULARY_BY_LENGTH = {len(facs.OPENGRAPHAU_41): "opengraphau-41"}
_LARGEST = {"guidance": LARGEST_SCALE, "au_scale": LARGEST_SCALE, "layout_strength": 1.0}


@dataclass(frozen=True)
class Settings:
    """The settings of a model that are not in the files of diffusers; from synfer.json.

    `au_maximum` is the AU intensity that a request's 1.0 stands for. `activation` is between the
    two linear layers of the adapter, None unless there are two. `annotators_know` are the only
    images that the annotators were trained on, such as "rendered faces"; empty if they are not
    limited. `face_template` has five points [x, y], where the model expects those of a face
    (bundle/face_template.py), None if it is not known. `defaults` has the fields of
    `bundle.Defaults`, `quality` only with a student. `class_labels` names the parts of the UNet's
    class embedding vector in their order: `pooled_text`, `aus`. `distilled` says what the student
    was distilled for (distilled.py), None if none is built.
    """

    name: str
    version: str
    licence: str
    description: str
    au_vocabulary: str | list[str] | None
    label_scheme: str
    defaults: dict[str, Any]
    class_labels: tuple[str, ...]
    au_maximum: float = 1.0
    activation: str | None = None
    annotators_know: str = ""
    face_template: list[list[float]] | None = None
    distilled: dict[str, Any] | None = None

    @property
    def au_names(self) -> tuple[str, ...]:
        """The action units in the order of the AU vector; none for a model without AUs."""
        vocabulary = self.au_vocabulary
        if isinstance(vocabulary, str):
            return facs.vocabulary(vocabulary)
        return tuple(vocabulary or ())


def read_settings(
    directory: Path,
    adapter: AUAdapter | None,
    adapter_path: Path,
    unet: Any,
    text_encoder: Any,
    has_layouts: bool,
    has_student: bool,
    implied: Mapping[str, Any],
) -> Settings:
    """The settings of the checkpoint `directory`, with defaults for missing fields.

    `implied` are the default settings that follow from the scheduler and the LoRAs; the file may
    name others. Without layouts the default layout is "none", whatever the file says; so is the
    quality "best" without a student that is built. Raises UserError for unknown fields, and for
    values that do not fit the adapter, the UNet or the student.
    """
    path = directory / SETTINGS_FILE
    given, says = _read_fields(path, adapter, adapter_path)
    parts = _class_label_parts(path, given)
    vocabulary = _vocabulary(path, given.get("au_vocabulary"), adapter, "aus" in parts, says)
    names = () if vocabulary is None else au_names(says, vocabulary)
    if adapter and len(names) != adapter.units:
        raise UserError(
            f"The AU adapter takes {adapter.units} action units, but the vocabulary "
            f"{vocabulary!r} in {says} has {len(names)}; write the one that the adapter was "
            "trained with."
        )
    _check_class_labels(path, parts, unet, text_encoder, len(names))
    scheme = given_scheme(given.get("label_scheme", "affectnet-8"), folder=directory).text
    if not all(map(label_schemes.is_expression, label_schemes.scheme(scheme))):
        raise UserError(
            f"{path} has the label_scheme {scheme!r}, in which not every place is a class; "
            "write classes alone, because the model makes images of each class."
        )
    present = (directory / DISTILLED_FOLDER).is_dir()
    distilled = read_distilled(path, given.get("distilled"), present)
    defaults = _defaults(path, given.get("defaults", {}), has_layouts, implied)
    if defaults["quality"] != BEST and distilled is None:
        raise UserError(
            f"{path} has the default quality {defaults['quality']}, but there is no "
            f"{DISTILLED_FOLDER}/; write the quality {BEST}."
        )
    if not has_student:
        del defaults["quality"]
    return Settings(
        name=str(given.get("name", model_name(directory))),
        version=str(given.get("version", "0")),
        licence=str(given.get("licence", "unknown, see the checkpoint's model card")),
        description=str(given.get("description", "")),
        au_vocabulary=list(names) if isinstance(vocabulary, (list, tuple)) else vocabulary,
        label_scheme=scheme,
        defaults=defaults,
        class_labels=parts,
        au_maximum=_maximum(says, given.get("au_maximum"), adapter),
        activation=_activation(path, given.get("activation"), adapter),
        annotators_know=str(given.get("annotators_know", "")),
        face_template=_face_template(path, given.get("face_template")),
        distilled=distilled if has_student else None,
    )


def _face_template(path: Path, points: Any) -> list[list[float]] | None:
    if points is None:
        return None
    try:
        return [list(point) for point in read_template(points, (1, 1)).points]
    except ValueError as problem:
        raise UserError(f"{path}: {problem}; correct it, or leave it out.") from None


def _read_fields(
    path: Path, adapter: AUAdapter | None, adapter_path: Path
) -> tuple[dict[str, Any], Path]:
    """The fields of the file `path` and of the one beside the adapter, which says the adapter's."""
    given = read_json(path, "mend its permissions") if path.exists() else {}
    check_fields(path, given, _FIELDS)
    beside = _beside(adapter_path)
    if adapter is None or not beside.is_file():
        return given, path
    read = read_json(beside, "mend its permissions")
    # The file may come from training code, with fields of its own.
    check_fields(beside, read, _ADAPTER_FIELDS, _ALIKE)
    own = {name: read[name] for name in _ADAPTER_FIELDS if name in read}
    if not adapter.projection.two_layers:
        own.pop("activation", None)  # it belongs to another network of the training code
    return given | own, beside if own else path


def _class_label_parts(path: Path, given: Mapping[str, Any]) -> tuple[str, ...]:
    parts = given.get("class_labels") or ()
    if not isinstance(parts, (list, tuple)):
        raise UserError(
            f"The class_labels {parts!r} in {path} are not a list; write those of "
            f"{', '.join(_CLASS_LABEL_PARTS)} that the UNet was trained with."
        )
    return tuple(parts)


def _vocabulary(
    path: Path, given: Any, adapter: AUAdapter | None, labelled: bool, says: Path
) -> Any:
    """The AU vocabulary `given` in the file `says`, else the adapter's; None without AUs.

    `labelled` is whether AUs are part of the UNet's class labels.
    """
    if adapter is None and not labelled:
        if given is not None:
            raise UserError(
                f"{path} has an au_vocabulary, but there is no AU adapter; give the adapter as "
                "`au_adapter`, or remove the field."
            )
        return None
    if given is not None:
        return given
    units = adapter.units if adapter else 0
    implied = (adapter and adapter.vocabulary) or _VOCABULARY_BY_LENGTH.get(units)
    if implied is None:
        raise UserError(
            f"The AU adapter takes {units} action units in an unknown order; write "
            f'{{"au_vocabulary": …}} into {says}: one of {", ".join(facs.VOCABULARIES)}, or a '
            "list of names."
        )
    return implied


def _defaults(
    path: Path, own: Any, has_layouts: bool, implied: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of `bundle.Defaults`: synfer.json's `own`, then `implied`, then general ones."""
    defaults = {
        "steps": 25,
        "guidance": 7.5,
        "au_scale": 1.0,
        "layout": "bank" if has_layouts else "none",
        "layout_strength": 0.8,
        "negative_prompt": "",
        "quality": BEST,
        **implied,
    }
    if not isinstance(own, dict):
        raise UserError(
            f'{path} has defaults that are not an object; write one such as {{"steps": 25}}.'
        )
    unknown = sorted(set(own) - set(defaults))
    if unknown:
        raise UserError(f"{path} has unknown defaults {unknown}; known are {', '.join(defaults)}.")
    for name, value in own.items():
        _check_default(path, name, value, defaults[name])
    defaults |= own
    if defaults["layout"] not in ("bank", "none"):
        raise UserError(
            f"{path} has the default layout {defaults['layout']!r}; write bank or none."
        )
    if defaults["quality"] not in QUALITIES:
        raise UserError(
            f"{path} has the default quality {defaults['quality']!r}; write one of "
            f"{', '.join(QUALITIES)}."
        )
    if not has_layouts:
        defaults["layout"] = "none"
    if defaults["solver"] not in SOLVERS:
        raise UserError(
            f"{path} has the solver {defaults['solver']!r}; known are {', '.join(SOLVERS)}."
        )
    return defaults


def _check_default(path: Path, name: str, value: Any, example: Any) -> None:
    kinds = (int, float) if isinstance(example, float) else type(example)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise UserError(
            f"{path} has the default {name} {value!r}; write a value such as {example!r}."
        )
    if name in _LARGEST and not 0 <= value <= _LARGEST[name]:
        raise UserError(
            f"{path} has the default {name} {value!r}; write a number from 0 to {_LARGEST[name]:g}."
        )


def model_name(directory: Path) -> str:
    """The name of a checkpoint without one in its settings: that of its directory or repository.

    In the Hugging Face cache, `models--<owner>--<name>/snapshots/<revision>`, it is <name>.
    """
    real = directory.resolve()
    if real.parent.name == "snapshots":
        return real.parents[1].name.rpartition("--")[2]
    return real.name


def check_defaults(
    path: Path, defaults: Mapping[str, Any], schedule: Mapping[str, Any], prediction_type: str
) -> None:
    """Raise UserError unless the model can be sampled with the `defaults` of the file `path`.

    `schedule` is that of the manifest.
    """
    strengths = {1.0, defaults["layout_strength"] if defaults["layout"] == "bank" else 1.0}
    try:
        for strength in strengths:
            trajectory(
                defaults["solver"],
                Schedule.from_manifest(schedule),
                defaults["steps"],
                strength,
                prediction_type,
            )
    except UserError as error:
        raise UserError(
            f"The model cannot be sampled with the defaults in {path}: {error}"
        ) from None


def _beside(adapter: Path) -> Path:
    return adapter / "au_adapter.json" if adapter.is_dir() else adapter.with_suffix(".json")


def _maximum(path: Path, given: Any, adapter: AUAdapter | None) -> float:
    if given is None:
        return adapter.maximum if adapter else 1.0
    if adapter is None:
        raise UserError(f"{path} has an au_maximum, but there is no AU adapter; remove it.")
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < math.inf:
        raise UserError(
            f"The au_maximum {given!r} in {path} must be a number above 0, such as 1 or 5."
        )
    return float(given)


def _activation(path: Path, given: Any, adapter: AUAdapter | None) -> str | None:
    two_layers = adapter is not None and adapter.projection.two_layers
    if given is None:
        return next(iter(ACTIVATIONS)) if two_layers else None
    if not two_layers:
        raise UserError(
            f"{path} has an activation, but there is no AU adapter with two layers; remove it."
        )
    if str(given).lower() not in ACTIVATIONS:
        raise UserError(
            f"The activation {given!r} of the AU adapter is unknown; write one of "
            f"{', '.join(ACTIVATIONS)} into its JSON file or {path}."
        )
    return str(given).lower()


def _check_class_labels(
    path: Path, parts: tuple[str, ...], unet: Any, text_encoder: Any, units: int
) -> None:
    unknown = [part for part in parts if part not in _CLASS_LABEL_PARTS]
    if unknown:
        known = ", ".join(_CLASS_LABEL_PARTS)
        raise UserError(f"{path} has unknown class_labels {unknown}; known are {known}.")
    widths = {"pooled_text": text_encoder.config.hidden_size, "aus": units}
    given = sum(widths[part] for part in parts)
    projects = unet.config.class_embed_type == "projection"
    wanted = unet.config.projection_class_embeddings_input_dim if projects else 0
    if given != wanted:
        raise UserError(
            f"The class_labels {list(parts)} in {path} have {given} numbers, but the UNet's class "
            f"embedding takes {wanted}; write the parts that it was trained with."
        )
