"""synfer.json: what a bundle says of its model that diffusers' files do not.

A JSON file beside the adapter and named like it (`au_adapter.json`; for a directory, in it) may
give the adapter's own fields, which go before those of synfer.json:

    au_vocabulary    a key of facs.VOCABULARIES, or a list of names in the order of the AU vector
    au_maximum       the intensity that the adapter was trained on for the strongest AU: 1, or 5
    activation       what is between its two linear layers: one of adapter.ACTIVATIONS
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.diffusion.solvers import SOLVERS, trajectory
from synfer_rt.errors import UserError
from synfer_rt.export.files.au_adapter import ACTIVATIONS, AUAdapter
from synfer_rt.export.files.au_vocabulary import au_names
from synfer_rt.export.files.json_files import check_fields, read_json
from synfer_rt.ranges import LARGEST_SCALE
from synfer_rt.vocabulary import facs, label_schemes

SETTINGS_FILE = "synfer.json"

_ADAPTER_FIELDS = ("au_vocabulary", "au_maximum", "activation")
_FIELDS = (
    *("name", "version", "licence", "description", "annotators_know", "images_seen"),
    *("label_scheme", "class_labels", "defaults", *_ADAPTER_FIELDS),
)
_ALIKE = 0.9
"""From this ratio of difflib's on, an unknown field of an adapter's file is a misspelt one."""

_CLASS_LABEL_PARTS = ("pooled_text", "aus")
_VOCABULARY_BY_LENGTH = {len(facs.OPENGRAPHAU_41): "opengraphau-41"}
_LARGEST = {"guidance": LARGEST_SCALE, "au_scale": LARGEST_SCALE, "layout_strength": 1.0}


@dataclass(frozen=True)
class Settings:
    """What a bundle says of its model that diffusers' files do not; from synfer.json.

    `au_maximum` is the AU intensity of the model that a request's 1.0 stands for, `activation` what
    is between the linear layers of its adapter, None unless there are two; `annotators_know` which
    images alone its annotators were trained on, such as "rendered faces", empty where that says
    nothing;
    `defaults` has the fields of `bundle.Defaults`; `class_labels` names the parts of the vector
    that the UNet's class embedding takes, in order: `pooled_text`, `aus`.
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
    solver: str,
) -> Settings:
    """The settings of checkpoint `directory`, with sensible values for what it leaves out.

    `solver` is that of its scheduler, the default unless the file names another. Without layouts
    the default layout is "none", whatever the file says. Raises UserError for what is unknown and
    for what does not fit the adapter or the UNet.
    """
    path = directory / SETTINGS_FILE
    given = read_json(path, "mend its permissions") if path.exists() else {}
    check_fields(path, given, _FIELDS)
    says = path
    if adapter is not None and (beside := _beside(adapter_path)).is_file():
        read = read_json(beside, "mend its permissions")
        # It may be a file of the training code, with fields of its own.
        check_fields(beside, read, _ADAPTER_FIELDS, _ALIKE)
        own = {name: read[name] for name in _ADAPTER_FIELDS if name in read}
        if not adapter.projection.two_layers:
            own.pop("activation", None)  # of something else in the training code
        given |= own
        says = beside if own else path
    parts = _class_label_parts(path, given)
    vocabulary = _vocabulary(path, given.get("au_vocabulary"), adapter, "aus" in parts, says)
    names = () if vocabulary is None else au_names(says, vocabulary)
    if adapter and len(names) != adapter.units:
        raise UserError(
            f"The AU adapter takes {adapter.units} action units, the vocabulary {vocabulary!r} in "
            f"{says} has {len(names)}; write the one that the adapter was trained with."
        )
    _check_class_labels(path, parts, unet, text_encoder, len(names))
    scheme = label_schemes.from_json(given.get("label_scheme", "affectnet-8"))
    if not all(map(label_schemes.is_expression, label_schemes.scheme(scheme))):
        raise UserError(
            f"{path} has the label_scheme {scheme!r}; write expressions alone: the model makes "
            "each of its classes."
        )
    return Settings(
        name=str(given.get("name", model_name(directory))),
        version=str(given.get("version", "0")),
        licence=str(given.get("licence", "unknown, see the checkpoint's model card")),
        description=str(given.get("description", "")),
        au_vocabulary=list(names) if isinstance(vocabulary, (list, tuple)) else vocabulary,
        label_scheme=scheme,
        defaults=_defaults(path, given.get("defaults", {}), has_layouts, solver),
        class_labels=parts,
        au_maximum=_maximum(says, given.get("au_maximum"), adapter),
        activation=_activation(path, given.get("activation"), adapter),
        annotators_know=str(given.get("annotators_know", "")),
    )


def _class_label_parts(path: Path, given: Mapping[str, Any]) -> tuple[str, ...]:
    parts = given.get("class_labels") or ()
    if not isinstance(parts, (list, tuple)):
        raise UserError(
            f"The class_labels {parts!r} in {path} are no list; write those of "
            f"{', '.join(_CLASS_LABEL_PARTS)} that the UNet was trained with."
        )
    return tuple(parts)


def _vocabulary(
    path: Path, given: Any, adapter: AUAdapter | None, labelled: bool, says: Path
) -> Any:
    """The AU vocabulary as `given` in the file `says`, else the adapter's; None without AUs.

    `labelled` says whether AUs are part of the UNet's class labels.
    """
    if adapter is None and not labelled:
        if given is not None:
            raise UserError(
                f"{path} has an au_vocabulary, but there is no AU adapter; give it with "
                "--au-adapter, or remove the field."
            )
        return None
    if given is not None:
        return given
    units = adapter.units if adapter else 0
    implied = (adapter and adapter.vocabulary) or _VOCABULARY_BY_LENGTH.get(units)
    if implied is None:
        raise UserError(
            f"The AU adapter takes {units} action units, whose order is not known; write "
            f'{{"au_vocabulary": …}} into {says}: one of {", ".join(facs.VOCABULARIES)}, or a '
            "list of names."
        )
    return implied


def _defaults(path: Path, own: Any, has_layouts: bool, solver: str) -> dict[str, Any]:
    """The fields of `bundle.Defaults`: those of synfer.json, its `own`, before sensible values."""
    defaults = {
        "solver": solver,
        "steps": 25,
        "guidance": 7.5,
        "au_scale": 1.0,
        "layout": "bank" if has_layouts else "none",
        "layout_strength": 0.8,
        "negative_prompt": "",
    }
    if not isinstance(own, dict):
        raise UserError(f'{path} has defaults that are no object; write {{"steps": 25}}, say.')
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
        raise UserError(f"{path} has the default {name} {value!r}; write one such as {example!r}.")
    if name in _LARGEST and not 0 <= value <= _LARGEST[name]:
        raise UserError(
            f"{path} has the default {name} {value!r}; write one of 0 to {_LARGEST[name]:g}."
        )


def model_name(directory: Path) -> str:
    """What a checkpoint is called that does not say it: its directory, or its repository.

    In the Hugging Face cache, `models--<owner>--<name>/snapshots/<revision>`, that is <name>.
    """
    real = directory.resolve()
    if real.parent.name == "snapshots":
        return real.parents[1].name.rpartition("--")[2]
    return real.name


def check_defaults(
    path: Path, defaults: Mapping[str, Any], schedule: Mapping[str, Any], prediction_type: str
) -> None:
    """UserError unless the model can be sampled with the `defaults` of the file `path`.

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
        raise UserError(f"The defaults in {path} cannot be sampled with: {error}") from None


def _beside(adapter: Path) -> Path:
    return adapter / "au_adapter.json" if adapter.is_dir() else adapter.with_suffix(".json")


def _maximum(path: Path, given: Any, adapter: AUAdapter | None) -> float:
    if given is None:
        return adapter.maximum if adapter else 1.0
    if adapter is None:
        raise UserError(f"{path} has an au_maximum, but there is no AU adapter; remove it.")
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < math.inf:
        raise UserError(f"The au_maximum {given!r} in {path} is no intensity; write 1 or 5, say.")
    return float(given)


def _activation(path: Path, given: Any, adapter: AUAdapter | None) -> str | None:
    two_layers = adapter is not None and adapter.projection.two_layers
    if given is None:
        return next(iter(ACTIVATIONS)) if two_layers else None
    if not two_layers:
        raise UserError(
            f"{path} has an activation, but there is no AU adapter of two layers; remove it."
        )
    if str(given).lower() not in ACTIVATIONS:
        raise UserError(
            f"The activation {given!r} of the AU adapter is not known; write one of "
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
            f"The class_labels {list(parts)} in {path} have {given} numbers, the UNet's class "
            f"embedding takes {wanted}; write the parts that it was trained with."
        )
