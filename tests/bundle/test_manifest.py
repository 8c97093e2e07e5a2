"""Every fault of a manifest is one sentence, and found before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.bundle import MANIFEST, open_bundle
from synfer_rt.errors import UserError
from tests import tiny_bundle as tiny
from tests.damaged_bundles import change


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '"bundle"'])
def test_a_manifest_that_is_none_is_named(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=r"bundle.json .*build-engines"):
        open_bundle(copy)


@pytest.mark.parametrize("key", ["schedule", "engines", "files", "layouts", "source", "exporter"])
def test_a_missing_field_is_named(copy: Path, key: str) -> None:
    change(copy, lambda fields: fields.pop(key))
    with pytest.raises(UserError, match=f"lacks '{key}'"):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("prediction_type", "sample", "unknown prediction type 'sample'"),
        ("history_slots", 2, "2 history slots instead of 3"),
        ("label_scheme", "ekman", "Unknown label scheme 'ekman'"),
        ("au_vocabulary", "facs", "Unknown AU vocabulary 'facs'"),
        ("layouts", None, "there is none"),
    ],
)
def test_a_field_with_an_impossible_value_is_refused(
    copy: Path, key: str, value: object, message: str
) -> None:
    change(copy, lambda fields: fields.update({key: value}))
    with pytest.raises(UserError, match=message):
        open_bundle(copy)


@pytest.mark.parametrize(
    "edit",
    [
        lambda fields: fields.pop("history_slots"),
        lambda fields: fields["tokenizer"].pop("file"),
        lambda fields: fields["layouts"].pop("count"),
        lambda fields: fields.update(files=None),
        lambda fields: fields.update(files=[]),
        lambda fields: fields["schedule"].update(num_train_timesteps=0),
        lambda fields: fields["defaults"].update(solver=["ddim"]),
        lambda fields: fields["defaults"].update(steps="16"),
        lambda fields: fields["defaults"].update(guidance=None),
    ],
)
def test_a_manifest_of_another_shape_is_refused(
    copy: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    change(copy, edit)
    with pytest.raises(UserError, match="build the bundle again"):
        open_bundle(copy)


def test_an_au_vocabulary_may_be_a_list_of_names(copy: Path) -> None:
    names = [f"AU{n}" for n in range(1, tiny.AUS + 1)]
    change(copy, lambda fields: fields.update(au_vocabulary=names))
    assert open_bundle(copy).au_names == tuple(names)
