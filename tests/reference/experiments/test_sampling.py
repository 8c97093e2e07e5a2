"""Sets of samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the experiments need synfer-rt[reference]")

from reference.experiments.sampling import Recipe, sample_set
from synfer_rt.sampler import Sampler


def test_text_only_asks_for_no_action_units(sampler: Sampler) -> None:
    with_aus, without = (Recipe("", aus=aus).plan(sampler, 7).request(1) for aus in (True, False))
    assert with_aus.aus and not without.aus
    assert (with_aus.prompt, with_aus.label) == (without.prompt, without.label)


def test_without_layouts_the_way_starts_from_noise_alone(sampler: Sampler) -> None:
    assert Recipe("", layouts=False).way(sampler).signal == 0
    assert Recipe("", layouts=False).plan(sampler, 7).request(0).layout is None


def test_a_form_without_an_engine_is_not_available(
    sampler: Sampler, guided_bundle, tiny_bundle
) -> None:
    guided = Recipe("", form="latent", strength=0.1)
    assert guided.available(Sampler(guided_bundle, "onnxruntime-cpu", 1))
    assert not guided.available(sampler) and Recipe("").available(sampler)


def test_a_set_is_its_samples_whatever_the_pieces(voting_bundle, tmp_path: Path) -> None:
    sampler = Sampler(voting_bundle, "onnxruntime-cpu", 1)
    recipe = Recipe("", labels="happy,fear")
    made = sample_set(sampler, recipe, 20, 3, tmp_path)
    classes = voting_bundle.classes
    assert [classes[i] for i in made["requested"][:3]] == ["happy", "fear", "happy"]
    alone = recipe.sample(sampler, np.array([17]), 3)[0]
    assert np.abs(made["images"][17].astype(int) - alone.image).max() <= 1
    assert classes[made["label"][17]] == alone.label


def test_another_name_is_no_other_set(voting_bundle, tmp_path: Path) -> None:
    sampler = Sampler(voting_bundle, "onnxruntime-cpu", 1)
    for name in ("one", "other"):
        sample_set(sampler, Recipe(name), 2, 3, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_other_requests_are_another_set(
    voting_bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, plan = Sampler(voting_bundle, "onnxruntime-cpu", 1), Recipe.plan
    for guidance in (1.5, 3.0):
        monkeypatch.setattr(Recipe, "plan", lambda *a, g=guidance: replace(plan(*a), guidance=g))
        sample_set(sampler, Recipe(""), 2, 3, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
