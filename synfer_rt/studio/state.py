"""The state of the page, as it comes in JSON, as the settings of `sample`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from synfer_rt.errors import UserError
from synfer_rt.jobs.sample_settings import SampleSettings
from synfer_rt.studio.photos import Photo

_SAME_NAME = (
    *("prompt", "negative_prompt", "aus", "au_scale", "quality", "steps", "guidance"),
    *("semantic_guidance", "semantic_form", "layout", "layout_strength", "seed"),
)
"""Fields of a state that are settings of `sample`, too. A field of null is not given."""


def settings_of(state: Mapping[str, Any], photo: Callable[[object], Photo]) -> SampleSettings:
    """The settings of the one image that a state shows; `photo` finds an upload by its key.

    A state is a mapping with the fields of `sample`, the field `label` instead of `labels` and
    `photo`, the key of an upload, instead of `layout_from`. Raises UserError for anything else and
    for a key that is not known; what the values must be is checked where a run is made of them.
    """
    given = {name: value for name, value in state.items() if value is not None}
    if unknown := sorted(given.keys() - {*_SAME_NAME, "label", "photo"}):
        raise UserError(f"A state has no field {unknown[0]!r}; reload the page.")
    settings: dict[str, Any] = {name: given[name] for name in _SAME_NAME if name in given}
    label = given.get("label")
    if not isinstance(label, str):
        raise UserError(f"`label` must be a class of the model, got {label!r}; choose one.")
    settings["labels"] = [label]
    if settings.get("semantic_guidance") is None:
        settings.pop("semantic_form", None)
    if "photo" in given:
        settings["layout_from"] = photo(given["photo"]).file
    return cast(SampleSettings, settings)
