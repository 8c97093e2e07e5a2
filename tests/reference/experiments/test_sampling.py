"""Sets of samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the experiments need synfer-rt[reference]")

from reference.experiments.sampling import Recipe, inverted_layouts, sample_set
from synfer_rt.diffusion.solvers import trajectory
from synfer_rt.sampling.inversion import NEUTRAL_PROMPT
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler


def test_text_only_asks_for_no_action_units(sampler: Sampler) -> None:
    with_aus, without = (Recipe("", aus=aus).requests(sampler, 7)[1] for aus in (True, False))
    assert with_aus.aus and not without.aus
    assert (with_aus.prompt, with_aus.label) == (without.prompt, without.label)


def test_without_layouts_the_way_starts_from_noise_alone(sampler: Sampler) -> None:
    assert Recipe("", layouts="none").way(sampler).signal == 0
    assert Recipe("", layouts="none").requests(sampler, 7)[0].layout is None


def test_a_form_without_an_engine_is_not_available(
    sampler: Sampler, guided_bundle, tiny_bundle
) -> None:
    guided = Recipe("", form="latent", strength=0.1)
    assert guided.available(Sampler.of(guided_bundle, "onnxruntime-cpu", 1))
    assert not guided.available(sampler) and Recipe("").available(sampler)


def test_a_set_is_its_samples_whatever_the_pieces(voting_bundle, tmp_path: Path) -> None:
    sampler = Sampler.of(voting_bundle, "onnxruntime-cpu", 1)
    recipe = Recipe("", labels=("happy", "fear"))
    made = sample_set(sampler, recipe, 20, 3, tmp_path)
    classes = voting_bundle.classes
    assert [classes[i] for i in made["requested"][:3]] == ["happy", "fear", "happy"]
    alone = recipe.sample(sampler, np.array([17]), 3, tmp_path)[0]
    assert np.abs(made["images"][17].astype(int) - alone.image).max() <= 1
    assert classes[made["label"][17]] == alone.label


def test_a_set_that_begins_later_is_that_part_of_a_longer_one(
    voting_bundle, tmp_path: Path
) -> None:
    sampler, recipe = (
        Sampler.of(voting_bundle, "onnxruntime-cpu", 1),
        Recipe("", labels=("happy", "fear")),
    )
    whole = sample_set(sampler, recipe, 9, 3, tmp_path)
    part = sample_set(sampler, recipe, 4, 3, tmp_path, first=5)
    assert part["requested"].tolist() == whole["requested"][5:].tolist()
    assert np.abs(part["images"].astype(int) - whole["images"][5:]).max() <= 1


def test_an_inverted_layout_leads_back_to_itself_and_is_inverted_once(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random weights are no smooth way: only the easiest part of it can be gone back.
    bundle, numbers = sampler.bundle, np.array([2, 0, 2])
    way = trajectory("ddim", bundle.schedule, 10, 0.3, bundle.prediction_type)
    starts = inverted_layouts(sampler, numbers, way, tmp_path)
    neutral = Request(0, 0, "happy", NEUTRAL_PROMPT, "", {}, 1.0, 1.0, None)
    back = sampler.denoised([neutral] * 3, starts, way)
    layouts = bundle.layouts.latents[numbers]
    assert np.abs(back - layouts).mean() < 0.1 * np.abs(starts - layouts).mean()
    calls, real = [], Sampler.denoised
    monkeypatch.setattr(Sampler, "denoised", lambda *a: calls.append(len(a[1])) or real(*a))
    again = inverted_layouts(sampler, np.array([0, 1]), way, tmp_path)
    assert calls == [1] and np.array_equal(again[0], starts[1])


def test_inverted_layouts_are_another_set_than_noised_ones(voting_bundle, tmp_path: Path) -> None:
    sampler = Sampler.of(voting_bundle, "onnxruntime-cpu", 1)
    recipes = Recipe(""), Recipe("", layouts="inverted")
    noised, inverted = (sample_set(sampler, one, 3, 3, tmp_path) for one in recipes)
    assert not np.array_equal(noised["images"], inverted["images"])
    requests, way = recipes[1].requests(sampler, 3)[:3], recipes[1].way(sampler)
    starts = inverted_layouts(sampler, np.array([r.layout for r in requests]), way, tmp_path)
    again = sampler.sample(requests, way, 3, starts=starts)
    assert np.array_equal(inverted["images"], np.stack([sample.image for sample in again]))


def test_another_name_is_no_other_set(voting_bundle, tmp_path: Path) -> None:
    sampler = Sampler.of(voting_bundle, "onnxruntime-cpu", 1)
    for name in ("one", "other"):
        sample_set(sampler, Recipe(name), 2, 3, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_other_requests_are_another_set(
    voting_bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, real = Sampler.of(voting_bundle, "onnxruntime-cpu", 1), Recipe.requests
    for guidance in (1.5, 3.0):
        changed = lambda *a, g=guidance: replace(real(*a), guidance=g)  # noqa: E731
        monkeypatch.setattr(Recipe, "requests", changed)
        sample_set(sampler, Recipe(""), 2, 3, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
