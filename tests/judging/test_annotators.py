from pathlib import Path

import numpy as np
import pytest

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.judging.annotators import Annotators
from synfer_rt.sampling.sampler import Sampler
from tests import tiny_bundle


@pytest.fixture(scope="module")
def annotators(voting_bundle: Bundle) -> Annotators:
    return Annotators(LoadedEngines(voting_bundle, "onnxruntime-cpu", threads=1))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((5, 3, 32, 32), np.float32)


def test_every_classifier_and_feranno_vote(annotators: Annotators, images: np.ndarray):
    opinions = annotators.opinions(images)
    assert [o.annotator for o in opinions] == ["classifier.small", "classifier.seven", "feranno"]
    assert [o.scheme for o in opinions] == ["hsemotion-8", "affectnet-7", "affectnet-8"]
    for opinion in opinions:
        np.testing.assert_allclose(opinion.probabilities.sum(1), 1, atol=1e-5)


def test_images_from_elsewhere_reach_feranno_through_the_encoder(
    annotators: Annotators, images: np.ndarray
):
    mean = annotators.engines.run_in_pieces("encoder", "images", images)["mean"]
    direct = annotators.opinions(images, mean)[-1].probabilities
    np.testing.assert_allclose(annotators.opinions(images)[-1].probabilities, direct)
    other = annotators.opinions(images, mean + 1)[-1].probabilities
    assert np.abs(other - direct).max() > 1e-3


def test_a_verdict_does_not_depend_on_the_batch(annotators: Annotators, images: np.ndarray):
    together = annotators.judge(images, ["happy"] * 5)
    alone = [annotators.judge(image[None], ["happy"])[0] for image in images]
    for one, other in zip(together, alone, strict=True):
        assert (one.label, one.rectified) == (other.label, other.rectified)
        assert one.confidence == pytest.approx(other.confidence, abs=2e-6)


def test_action_units_are_read_where_the_bundle_can(
    annotators: Annotators, images: np.ndarray, sampler: Sampler
):
    aus = annotators.aus(images)
    assert aus is not None and aus.shape == (5, 41)
    assert aus.min() >= 0 and aus.max() <= 1
    assert Annotators(sampler.engines).aus(images) is None


def test_a_bundle_without_annotators_is_refused(tmp_path: Path):
    bundle = tiny_bundle.build(tmp_path / "bare", with_classifier=False)
    with pytest.raises(UserError, match="neither a classifier nor FERAnno"):
        Annotators(LoadedEngines(bundle, "onnxruntime-cpu", threads=1))
