"""Which steps are guided, what the engines are given, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from synfer_rt.backends import status
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.solvers import SOLVERS, Trajectory, trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling.guidance import FORMS, Guide, SemanticGuidance, one_hot, semantic_guidance
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.sampling.samples import Sample


@pytest.fixture
def with_all_guides(tiny_bundle: Bundle) -> Bundle:
    """The tiny bundle as if it had all guides; only its manifest is asked here."""
    guides = {f"guide.{form}": tiny_bundle.engines["denoiser"] for form in FORMS}
    return dataclasses.replace(tiny_bundle, engines={**tiny_bundle.engines, **guides})


def guided_steps(semantic: SemanticGuidance, steps: int) -> list[int]:
    return [i for i in range(steps) if semantic.guides(i, steps)]


def test_guidance_starts_late_and_goes_on_to_the_end() -> None:
    assert guided_steps(SemanticGuidance("latent", 1.0), 35) == list(range(15, 35))
    assert guided_steps(SemanticGuidance("latent", 1.0, start=0.5), 5) == [3, 4]
    assert guided_steps(SemanticGuidance("latent", 1.0, start=0.0), 3) == [0, 1, 2]


def test_every_nth_step_is_guided_from_the_start_on() -> None:
    assert guided_steps(SemanticGuidance("text", 1.0, start=0.25, every=3), 12) == [3, 6, 9]


def test_nothing_asked_is_no_guidance(tiny_bundle: Bundle) -> None:
    assert semantic_guidance(tiny_bundle, None) is None
    assert semantic_guidance(tiny_bundle, 0.0, "text") is None
    with pytest.raises(UserError, match=r"need `semantic_guidance`; add `semantic_guidance=0\.1`"):
        semantic_guidance(tiny_bundle, None, every=2)


def test_what_is_asked_is_what_is_done(with_all_guides: Bundle) -> None:
    found = semantic_guidance(with_all_guides, 0.1, "text", 0.25, 2)
    assert found == SemanticGuidance("text", 0.1, 0.25, 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"form": "txt"}, "Unknown `semantic_form` 'txt'; the nearest is text "),
        ({"strength": -1.0}, "`semantic_guidance` must be a finite number of at least 0, got -1"),
        ({"strength": math.nan}, "finite number of at least 0, got nan"),
        ({"strength": math.inf}, "finite number of at least 0, got inf"),
        ({"start": 1.0}, "`semantic_start` must be at least 0 and below 1, got 1"),
        ({"strength": "0.1"}, "finite number of at least 0, got '0.1'"),
        ({"strength": True}, "finite number of at least 0, got True"),
        ({"start": "0"}, "`semantic_start` must be at least 0 and below 1, got '0'"),
        ({"every": 1.5}, "`semantic_every` must be a whole number of at least 1, got 1.5"),
        ({"form": 3}, "Unknown `semantic_form` 3"),
        ({"start": -0.1}, "`semantic_start` must be at least 0 and below 1, got -0.1"),
        ({"every": 0}, "`semantic_every` must be at least 1, got 0"),
    ],
)
def test_impossible_guidance_is_refused(
    with_all_guides: Bundle, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        semantic_guidance(with_all_guides, **{"strength": 1.0, **options})


def test_a_bundle_without_the_engine_names_the_remedy(
    tiny_bundle: Bundle, with_all_guides: Bundle
) -> None:
    with pytest.raises(UserError, match=r"no engine guide\.latent; build it .*latent_classifier/"):
        semantic_guidance(tiny_bundle, 1.0, "latent")
    engines = dict(with_all_guides.engines)
    del engines["guide.text"]
    without = dataclasses.replace(with_all_guides, engines=engines)
    with pytest.raises(UserError, match=r'`semantic_form="latent"`, or build .*image_classifier/'):
        semantic_guidance(without, 1.0, "text")


def test_labels_are_one_hot_by_name() -> None:
    np.testing.assert_array_equal(one_hot(["sad", "happy"], ("happy", "sad")), [[0, 1], [1, 0]])


class Recorder:
    """An engine that keeps what it is given."""

    spec: Any = None
    backend = "none"

    def __init__(self, **outputs: Any) -> None:
        self.outputs: dict[str, Any] = outputs
        self.calls: list[Mapping[str, Any]] = []

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        pytest.fail("guides run on the device")

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.calls.append(inputs)
        return self.outputs


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_guide_is_told_the_clean_image_of_its_step(
    tiny_bundle: Bundle, solver: str, prediction_type: str
) -> None:
    schedule = dataclasses.replace(
        tiny_bundle.schedule, alphas_cumprod=np.linspace(0.99, 0.01, 1000)
    )
    way = trajectory(solver, schedule, 5, 1.0, prediction_type)
    engine = Recorder(guided_latents=1, guided_history=2)
    semantic = SemanticGuidance("latent", 0.5, start=0.0)
    guide = Guide(semantic, engine, np.eye(2), way)
    draws = np.random.default_rng(0)
    for step, timestep in enumerate(way.timesteps):
        alpha_bar = np.interp(timestep, np.arange(1000), schedule.alphas_cumprod)
        clean, noise = draws.standard_normal(2).tolist()
        latents = alpha_bar**0.5 * clean + (1 - alpha_bar) ** 0.5 * noise
        velocity = alpha_bar**0.5 * noise - (1 - alpha_bar) ** 0.5 * clean
        prediction = noise if prediction_type == "epsilon" else velocity
        guide.after(step, {}, {})
        a, b = engine.calls[-1]["clean"]
        assert a * latents + b * prediction == pytest.approx(clean, rel=1e-3, abs=1e-3)


def test_the_text_form_replaces_the_text_before_guided_steps(tiny_bundle: Bundle) -> None:
    way = trajectory("ddim", tiny_bundle.schedule, 4, 1.0, "v_prediction")
    engine = Recorder(guided_text="moved")
    semantic = SemanticGuidance("text", 0.1, start=0.5)
    guide = Guide(semantic, engine, np.eye(2), way)
    changes = [guide.before(i, {"latents": i, "text": "said"}) for i in range(4)]
    assert changes == [{}, {}, {"text": "moved"}, {"text": "moved"}]
    assert [call["latents"] for call in engine.calls] == [2, 3]
    np.testing.assert_array_equal(engine.calls[0]["strength"], np.array([0.1, 0.1], np.float32))
    assert guide.after(3, {}, outputs := {"next_latents": 0}) is outputs


def test_the_latent_form_corrects_the_step_after_it(tiny_bundle: Bundle) -> None:
    way = trajectory("ddim", tiny_bundle.schedule, 4, 1.0, "v_prediction")
    engine = Recorder(guided_latents="better", guided_history="too")
    guide = Guide(SemanticGuidance("latent", 0.1, start=0.5), engine, np.eye(2), way)
    plain = {"next_latents": "plain", "next_history": "plain", "prediction": "p"}
    assert guide.before(3, {}) == {}
    assert guide.after(1, {}, plain) is plain
    found = guide.after(2, {"latents": "x", "coefficients": "c"}, plain)
    assert found == {"next_latents": "better", "next_history": "too"}
    assert engine.calls[0]["next_latents"] == "plain"
    assert engine.calls[0]["coefficients"] == "c"


CPU = "onnxruntime-cpu"
WORDS = ("happy", "sad", "angry", "neutral")


def requests(bundle: Bundle) -> list[Request]:
    return [
        Request(i, 5, bundle.classes[i % 8], f"a {WORDS[i % 4]} face", "", {}, 2.0, 1.0, i % 6)
        for i in range(16)
    ]


def wanted_share(sample: Sample) -> float:
    return sample.probabilities[sample.request.label]


@pytest.fixture(scope="module")
def plain(guided_bundle: Bundle, way: Trajectory) -> list[Sample]:
    return Sampler.of(guided_bundle, CPU, 1).sample(requests(guided_bundle), way, 16)


@pytest.fixture(scope="module")
def way(tiny_bundle: Bundle) -> Trajectory:
    return trajectory("dpmpp-2m", tiny_bundle.schedule, 6, 0.9, tiny_bundle.prediction_type)


STEERED = [SemanticGuidance("latent", 0.3), SemanticGuidance("text-latent", 1.0)]
both_forms = pytest.mark.parametrize("semantic", STEERED, ids=lambda s: s.form)


@both_forms
def test_guidance_makes_the_requested_expression_likelier(
    guided_bundle: Bundle, way: Trajectory, plain: list[Sample], semantic: SemanticGuidance
) -> None:
    sampler = Sampler.of(guided_bundle, CPU, 1)
    guided = sampler.sample(requests(guided_bundle), way, 16, semantic)
    gains = [wanted_share(b) - wanted_share(a) for a, b in zip(plain, guided, strict=True)]
    assert np.mean(gains) > 0.005
    assert np.mean(np.array(gains) > 0) > 0.7


@both_forms
def test_a_guided_sample_does_not_depend_on_its_batch(
    guided_bundle: Bundle, way: Trajectory, plain: list[Sample], semantic: SemanticGuidance
) -> None:
    sampler = Sampler.of(guided_bundle, CPU, 1)
    wanted = requests(guided_bundle)
    together = sampler.sample(wanted, way, 16, semantic)
    apart = sampler.sample(wanted[3:6], way, 1, semantic)
    for one, other, unguided in zip(together[3:6], apart, plain[3:6], strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 2
        assert np.abs(one.image.astype(int) - unguided.image).max() > 5


@pytest.mark.skipif(not status("openvino-cpu").works, reason=status("openvino-cpu").reason)
def test_an_image_that_is_made_again_is_guided_too(guided_bundle: Bundle, way: Trajectory) -> None:
    class Damaged(Sampler):
        def decode(self, latents: np.ndarray) -> np.ndarray:
            return np.zeros_like(super().decode(latents))

    wanted, semantic = requests(guided_bundle)[:2], STEERED[0]
    damaged = Damaged.of(guided_bundle, "openvino-cpu", 1)
    again = damaged.sample(wanted, way, 2, semantic)
    assert [sample.backend for sample in again] == [CPU, CPU]
    sound = Sampler.of(guided_bundle, CPU, 1).sample(wanted, way, 2, semantic)
    for one, other in zip(again, sound, strict=True):
        np.testing.assert_allclose(one.image.astype(int), other.image, atol=2)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
