"""An opened bundle says what it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from synfer_rt.bundle import Bundle
from tests import tiny_bundle as tiny


def test_a_bundle_says_what_it_is(tiny_bundle: Bundle) -> None:
    assert tiny_bundle.name == "synfer-tiny"
    assert tiny_bundle.image_size == tiny.IMAGE
    assert tiny_bundle.latent.shape == tiny.LATENT
    assert len(tiny_bundle.au_names) == tiny.AUS
    assert tiny_bundle.classes[:2] == ("neutral", "happy")
    assert tiny_bundle.classifiers == ("classifier.small",)
    assert tiny_bundle.defaults.steps == 4
    assert tiny_bundle.engines["decoder"].outputs[0].shape == ("B", 3, 32, 32)


def test_a_bundle_is_immutable(tiny_bundle: Bundle) -> None:
    with pytest.raises(AttributeError):
        tiny_bundle.name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    assert replace(tiny_bundle, name="other").name == "other"
