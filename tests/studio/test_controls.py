"""The controls that a bundle has."""

from __future__ import annotations

from itertools import chain

import pytest

from synfer_rt.bundle import Bundle
from synfer_rt.studio.controls import OTHER, controls, regions
from synfer_rt.vocabulary.facs import ACTION_UNITS, REGIONS, VOCABULARIES


@pytest.mark.parametrize("names", VOCABULARIES.values(), ids=VOCABULARIES)
def test_every_unit_and_side_has_one_slider(names: tuple[str, ...]):
    units = [unit for region in regions(names) for unit in region["units"]]
    shown = [unit["name"] for unit in units] + [s for unit in units for s in unit["sides"] or ()]
    assert sorted(shown) == sorted(names)
    assert all(unit["text"] == ACTION_UNITS[unit["name"]] for unit in units)


def test_units_have_sides_where_the_vocabulary_names_them():
    by_name = {
        unit["name"]: unit["sides"]
        for region in regions(VOCABULARIES["opengraphau-41"])
        for unit in region["units"]
    }
    assert by_name["AU12"] == ["L12", "R12"] and by_name["AU25"] is None
    (alone,) = regions(("AU12", "L12"))[0]["units"][:1]
    assert alone["sides"] is None


def test_regions_are_in_the_order_of_the_face():
    named = [region["name"] for region in regions(VOCABULARIES["opengraphau-41"])]
    assert named == list(REGIONS) and OTHER not in named


def test_a_unit_has_one_region():
    numbers = list(chain(*REGIONS.values()))
    assert len(numbers) == len({*numbers})
    assert {int(name[2:]) for name in ACTION_UNITS if name[0] == "A"} <= {*numbers}


def test_names_outside_facs_are_shown_as_they_are():
    (other,) = regions(("smile", "AU99"))
    assert other["name"] == OTHER
    assert [unit["name"] for unit in other["units"]] == ["smile", "AU99"]


def test_controls_are_those_of_the_bundle(bundle: Bundle):
    shown = controls(bundle, "some")
    assert shown["classes"] == list(bundle.classes) and shown["backend"] == "some"
    assert shown["qualities"] == ["best", "fast"] and shown["guidance"] == 2.5
    assert shown["forms"] == ["text", "text-latent", "latent"]
    assert shown["annotators"] == ["classifier.dense", "classifier.residual", "feranno"]
    assert shown["reads_aus"] and shown["photos"] and shown["layouts"] > 0


def test_a_bundle_without_guides_units_and_encoder_has_fewer(tiny_bundle: Bundle):
    shown = controls(tiny_bundle, "some")
    assert shown["forms"] == [] and not shown["reads_aus"]
