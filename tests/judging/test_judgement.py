"""What the annotators say of samples, and the label that the vote settles on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synfer_rt.backends import open_engine, to_numpy
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.sampling.samples import Sample
from synfer_rt.vocabulary import label_schemes
from tests import tiny_bundle as tiny
from tests.samples import request

CPU = "onnxruntime-cpu"


def test_the_classifiers_classes_are_mapped_by_name(sampler: Sampler, tiny_bundle: Bundle) -> None:
    images = np.random.default_rng(0).random((4, 3, *tiny.IMAGE), np.float32)
    raw = open_engine(tiny_bundle, "classifier.small", CPU).run({"images": images})
    verdicts = sampler.judge(images, ["happy"] * 4)
    theirs, ours = label_schemes.scheme(tiny.CLASSIFIER_SCHEME), tiny_bundle.classes
    assert theirs != ours
    for name in ours:
        np.testing.assert_allclose(
            [verdict.probabilities[name] for verdict in verdicts],
            raw["probabilities"][:, theirs.index(name)],
            atol=1e-6,
        )


def test_a_sample_says_what_the_classifier_says(sixty_four: list[Sample]) -> None:
    for sample in sixty_four:
        assert tuple(sample.probabilities) == label_schemes.scheme("affectnet-8")
        assert sum(sample.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert sample.best == max(sample.probabilities, key=sample.probabilities.__getitem__)
        assert sample.accepted == (sample.best == "happy")
        assert sample.image.shape == (*tiny.IMAGE, 3)
        assert sample.image.dtype == np.uint8


@pytest.fixture(scope="module")
def voted(voting_bundle: Bundle, way: Trajectory) -> list[Sample]:
    return Sampler.of(voting_bundle, CPU, threads=1).sample(
        [request(i) for i in range(24)], way, 24
    )


def test_the_vote_replaces_a_label_that_it_does_not_agree_with(voted: list[Sample]) -> None:
    assert {sample.rectified for sample in voted} == {True, False}
    for sample in voted:
        assert sample.best == max(sample.probabilities, key=sample.probabilities.__getitem__)
        assert sample.label == sample.best
        assert sample.rectified == (sample.label != sample.request.label)
        assert not (sample.accepted and sample.rectified)


def test_a_label_is_accepted_where_most_annotators_see_it(voting_bundle: Bundle) -> None:
    sampler = Sampler.of(voting_bundle, CPU, threads=1)
    rng = np.random.default_rng(1)
    flat = rng.random((48, 3, 1, 1))
    noise = rng.normal(0, 0.1, (48, 3, *tiny.IMAGE))
    images = (flat + noise).clip(0, 1).astype(np.float32)
    opinions = sampler.annotators.opinions(images)
    wanted = [verdict.label for verdict in sampler.annotators.judge(images, [None] * 48)]
    seen = [sum(o.best(i) == wanted[i] for o in opinions) for i in range(48)]
    for i, verdict in enumerate(sampler.judge(images, wanted)):
        assert verdict.agrees == (2 * seen[i] > len(opinions) and verdict.best == wanted[i])
    assert len({verdict.agrees for verdict in sampler.judge(images, wanted)}) == 2


def test_a_single_annotator_replaces_no_label(sixty_four: list[Sample]) -> None:
    assert any(sample.best != "happy" for sample in sixty_four)
    assert {(sample.label, sample.rectified) for sample in sixty_four} == {("happy", False)}


def test_feranno_reads_the_finished_latents(
    voting_bundle: Bundle, way: Trajectory, voted: list[Sample]
) -> None:
    sampler = Sampler.of(voting_bundle, CPU, threads=1)
    requests = [request(i) for i in range(3)]
    latents = sampler.start(requests, way)
    guidance = np.array([r.guidance for r in requests], np.float32)
    *_, latents = sampler.denoise(latents, sampler.condition(requests), guidance, way)
    images = sampler.decode(to_numpy(latents))
    verdicts = sampler.judge(images, ["happy"] * 3, to_numpy(latents))
    for verdict, sample in zip(verdicts, voted, strict=False):
        assert list(verdict.probabilities.values()) == pytest.approx(
            list(sample.probabilities.values()), abs=1e-4
        )
    assert sampler.judge(images, ["happy"] * 3) != verdicts  # re-encoded


def test_without_a_classifier_nothing_is_judged(tmp_path: Path, way: Trajectory) -> None:
    sampler = Sampler.of(tiny.build(tmp_path / "b", with_classifier=False), CPU, threads=1)
    (sample,) = sampler.sample([request(0)], way, 1)
    assert (sample.probabilities, sample.best, sample.accepted) == ({}, "", False)
    with pytest.raises(UserError, match="neither a classifier nor FERAnno"):
        sampler.judge(np.zeros((1, 3, *tiny.IMAGE), np.float32), ["happy"])
