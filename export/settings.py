"""synfer.json: what a bundle says of its model that diffusers' files do not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synfer_rt import facs, labels
from synfer_rt.errors import UserError
from synfer_rt.solvers import SOLVERS

from .adapter import AUAdapter

SETTINGS_FILE = "synfer.json"

_CLASS_LABEL_PARTS = ("pooled_text", "aus")
_VOCABULARY_BY_LENGTH = {len(facs.OPENGRAPHAU_41): "opengraphau-41"}


@dataclass(frozen=True)
class Settings:
    """What a bundle says of its model that diffusers' files do not; from synfer.json.

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


def read_json(path: Path, why: str) -> dict[str, Any]:
    """The JSON object in `path`; UserError, ending in `why`, when there is none."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {why}.") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); write or fetch it again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; write or fetch it again.")
    return content


def read_settings(
    directory: Path, adapter: AUAdapter | None, unet: Any, text_encoder: Any, has_layouts: bool
) -> Settings:
    """The settings of checkpoint `directory`, with sensible values for what it leaves out.

    Raises UserError for what is unknown and for what does not fit the adapter or the UNet.
    """
    path = directory / SETTINGS_FILE
    given = read_json(path, "mend its permissions") if path.exists() else {}
    units = adapter.units if adapter else 0
    vocabulary = given.get("au_vocabulary")
    parts = tuple(given.get("class_labels") or ())
    if adapter is None and "aus" not in parts:
        vocabulary = None
    elif vocabulary is None:
        vocabulary = _VOCABULARY_BY_LENGTH.get(units)
        if vocabulary is None:
            known = ", ".join(facs.VOCABULARIES)
            raise UserError(
                f"The AU adapter takes {units} action units, whose order is not known; write "
                f'{{"au_vocabulary": …}} into {path}: one of {known}, or a list of names.'
            )
    names = facs.vocabulary(vocabulary) if isinstance(vocabulary, str) else vocabulary or ()
    if adapter and len(names) != units:
        raise UserError(
            f"The AU adapter takes {units} action units, the vocabulary {vocabulary!r} in {path} "
            f"has {len(names)}; write the one that the adapter was trained with."
        )
    _check_class_labels(path, parts, unet, text_encoder, len(names))
    defaults = {
        "solver": "dpmpp-2m",
        "steps": 25,
        "guidance": 7.5,
        "au_scale": 1.0,
        "layout": "bank" if has_layouts else "none",
        "layout_strength": 0.8,
        "negative_prompt": "",
    }
    unknown = sorted(set(given.get("defaults", {})) - set(defaults))
    if unknown:
        raise UserError(f"{path} has unknown defaults {unknown}; known are {', '.join(defaults)}.")
    defaults |= given.get("defaults", {})
    if defaults["solver"] not in SOLVERS:
        raise UserError(
            f"{path} has the solver {defaults['solver']!r}; known are {', '.join(SOLVERS)}."
        )
    scheme = given.get("label_scheme", "affectnet-8")
    labels.scheme(scheme)
    return Settings(
        name=str(given.get("name", directory.resolve().name)),
        version=str(given.get("version", "0")),
        licence=str(given.get("licence", "unknown, see the checkpoint's model card")),
        description=str(given.get("description", "")),
        au_vocabulary=vocabulary,
        label_scheme=scheme,
        defaults=defaults,
        class_labels=parts,
    )


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
