"""What the evaluation compares, and on whom its intervals stand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

import torch

from reference import classifiers, evaluate, renders
from reference.evaluate import Faces, Readers
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
