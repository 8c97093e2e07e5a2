"""What the evaluation compares, and on whom its intervals stand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

import torch

from reference import classifiers, evaluate, renders
from reference.evaluate import Faces, Readers
from synfer_rt.bundle import Bundle
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.vocabulary import prompts

FACE = prompts.Attributes(prompts.AGES[1], prompts.GENDERS[0], prompts.ANCESTRIES[0])
SENTENCE = prompts.describe(FACE, None, (0.0, 0.0, 0.0))


def a_person_each(images_each: int) -> renders.Renders:
    """Held-out renders of 24 people, as many of each, which are all alike."""
    rng, people = np.random.default_rng(0), np.repeat(np.arange(24), images_each)
    images = rng.integers(0, 256, (24, 64, 64, 3), np.uint8)
    table = {
        "age": rng.random(24),
        "gender": rng.random(24),
        "ancestry": np.eye(3)[rng.integers(0, 3, 24)],
    }
    annotations = {name: values[people] for name, values in table.items()}
    return renders.Renders(images[people], {"identity": 16 * people, **annotations}, "key")


def test_what_renders_say_of_prompts_is_no_surer_for_more_images_of_a_person() -> None:
    torch.manual_seed(0)
    network = classifiers.NETWORKS["attribute-reader"].build().eval()
    samples = Faces(a_person_each(1).images[:1], np.zeros(1, int))
    once, thrice = (
        evaluate.measure_prompts(samples, [SENTENCE], a_person_each(n), network) for n in (1, 3)
    )
    for name, one in once["renders"].items():
        share, half = thrice["renders"][name]["agreement"]
        assert share == pytest.approx(one["agreement"][0])
        if 0 < share < 1:
            assert half == pytest.approx(one["agreement"][1], rel=0.05)
    assert any(0 < one["agreement"][0] < 1 for one in once["renders"].values())


def test_both_networks_are_asked_who_is_who() -> None:
    data = a_person_each(2)
    networks = [classifiers.NETWORKS[name].build().eval() for name in ("judge", "attribute-reader")]
    readers = Readers(networks[0], networks[0], networks[1], None)
    faces, people = Faces(data.images, np.zeros(48, int)), data.annotations["identity"]
    found = evaluate.tell_people_apart(faces, people, readers)
    assert found.keys() == {"attribute reader", "judge"}
    for one in found.values():
        assert one["share"][0] == 1 and one["chance"] == pytest.approx(1 / 47)


def test_settings_that_a_student_cannot_follow_are_evaluated_on_its_teacher(
    student_bundle: Bundle, capsys: pytest.CaptureFixture
) -> None:
    none: dict[str, Any] = dict.fromkeys(("solver", "steps", "guidance"))
    default = evaluate.quality_of(student_bundle, None, none, 1.0)
    assert default.quality == student_bundle.defaults.quality == "fast"
    assert student_bundle.distilled is not None and not capsys.readouterr().err
    assert default.steps == student_bundle.distilled.steps
    assert evaluate.quality_of(student_bundle, "best", none, 1.0) == replace(
        student_bundle.defaults, quality="best"
    )
    other = evaluate.quality_of(student_bundle, None, none | {"guidance": 9.0}, 1.0)
    assert other.quality == "best" and "fast cannot follow `guidance`" in capsys.readouterr().err


def test_what_is_not_given_is_the_default_of_the_quality(
    student_bundle: Bundle, tmp_path: Path
) -> None:
    sampler = Sampler.of(student_bundle, "onnxruntime-cpu", 1)
    none: dict[str, Any] = dict.fromkeys(("solver", "steps", "guidance"))
    fast = evaluate.sampling_of(sampler, None, none, "none", None, tmp_path)
    assert (fast.quality, fast.solver, fast.steps, fast.strength) == ("fast", "ddim", 2, 1.0)
    best = evaluate.sampling_of(sampler, "best", none, "none", None, tmp_path)
    defaults = student_bundle.defaults
    assert (best.quality, best.solver, best.steps) == ("best", defaults.solver, defaults.steps)
    made = [sampling.sample(fast.requests[:2], "testing")["images"] for sampling in (fast, best)]
    assert not np.array_equal(made[0], made[1])
    other = evaluate.sampling_of(sampler, None, none | {"steps": 3}, "none", None, tmp_path)
    assert (other.quality, other.solver, other.steps) == ("best", defaults.solver, 3)
