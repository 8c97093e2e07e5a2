"""Which steps are guided, what the engines are given, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.guidance import FORMS, Guide, SemanticGuidance, semantic_guidance, targets
from synfer_rt.solvers import SOLVERS, trajectory


@pytest.fixture
def guided_bundle(tiny_bundle: Bundle) -> Bundle:
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


def test_what_is_asked_is_what_is_done(guided_bundle: Bundle) -> None:
    found = semantic_guidance(guided_bundle, 0.1, "text", 0.25, 2)
    assert found == SemanticGuidance("text", 0.1, 0.25, 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"form": "txt"}, "'txt'; the nearest is text "),
        ({"strength": -1.0}, "is -1.0; write a number of 0 or more"),
        ({"strength": math.nan}, "is nan; write"),
        ({"strength": math.inf}, "is inf; write"),
        ({"start": 1.0}, "after 1 of the steps; write a fraction"),
        ({"start": -0.1}, "after -0.1 of the steps; write a fraction"),
        ({"every": 0}, "Every 0 steps is never; write 1"),
    ],
)
def test_impossible_guidance_is_refused(
    guided_bundle: Bundle, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        semantic_guidance(guided_bundle, **{"strength": 1.0, **options})


def test_a_bundle_without_the_engine_names_the_remedy(
    tiny_bundle: Bundle, guided_bundle: Bundle
) -> None:
    with pytest.raises(UserError, match=r"no engine guide\.latent; build it .*latent_classifier/"):
        semantic_guidance(tiny_bundle, 1.0, "latent")
    engines = dict(guided_bundle.engines)
    del engines["guide.text"]
    without = dataclasses.replace(guided_bundle, engines=engines)
    with pytest.raises(UserError, match=r"--semantic-form latent, or build .*image_classifier/"):
        semantic_guidance(without, 1.0, "text")


def test_targets_are_one_hot_by_name() -> None:
    np.testing.assert_array_equal(targets(["sad", "happy"], ("happy", "sad")), [[0, 1], [1, 0]])


class Recorder:
    """An engine that keeps what it is given."""

    def __init__(self, **outputs: Any) -> None:
        self.outputs, self.calls = outputs, []

    def run_on_device(self, inputs: dict[str, Any]) -> dict[str, Any]:
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
    guide = Guide(semantic, lambda name: engine, np.eye(2), way)  # type: ignore[arg-type]
    draws = np.random.default_rng(0)
    for step, timestep in enumerate(way.timesteps):
        alpha_bar = np.interp(timestep, np.arange(1000), schedule.alphas_cumprod)
        clean, noise = draws.standard_normal(2)
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
    guide = Guide(semantic, lambda name: engine, np.eye(2), way)  # type: ignore[arg-type]
    changes = [guide.before(i, {"latents": i, "text": "said"}) for i in range(4)]
    assert changes == [{}, {}, {"text": "moved"}, {"text": "moved"}]
    assert [call["latents"] for call in engine.calls] == [2, 3]
    np.testing.assert_array_equal(engine.calls[0]["strength"], np.float32([0.1, 0.1]))
    assert guide.after(3, {}, outputs := {"next_latents": 0}) is outputs


def test_the_latent_form_corrects_the_step_after_it(tiny_bundle: Bundle) -> None:
    way = trajectory("ddim", tiny_bundle.schedule, 4, 1.0, "v_prediction")
    engine = Recorder(guided_latents="better", guided_history="too")
    opened = []

    def opening(name: str) -> Any:
        opened.append(name)
        return engine

    guide = Guide(SemanticGuidance("latent", 0.1, start=0.5), opening, np.eye(2), way)
    assert opened == ["guide.latent"]
    plain = {"next_latents": "plain", "next_history": "plain", "prediction": "p"}
    assert guide.before(3, {}) == {}
    assert guide.after(1, {}, plain) is plain
    found = guide.after(2, {"latents": "x", "coefficients": "c"}, plain)
    assert found == {"next_latents": "better", "next_history": "too"}
    assert engine.calls[0]["next_latents"] == "plain"
    assert engine.calls[0]["coefficients"] == "c"
