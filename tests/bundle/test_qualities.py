"""Qualities: what the manifest says of them, and which of them a run takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.qualities import Distilled, settled
from synfer_rt.diffusion.solvers import trajectory
from synfer_rt.errors import UserError
from tests.damaged_bundles import change
from tests.students import FAST, with_student

STUDENT = Distilled("denoiser.distilled", "ddim", 4, 2.5, (0.8, 1.0))
TIMED = Distilled("denoiser.distilled", "ddim", 2, 2.5, (0.8, 1.0), ((799, 300), (999, 400)))

UNLIKE: dict[str, tuple[dict[str, Any], str]] = {
    "guidance": ({"guidance": 5.0}, "`guidance` 5 (its own is 2.5)"),
    "no guidance": ({"guidance": 1.0}, "`guidance` 1 (its own is 2.5)"),
    "negative prompt": ({"negative_prompt": "beard"}, "`negative_prompt` (its guidance is"),
    "guidance interval": ({"guidance_interval": (0.2, 5.0)}, "`guidance_interval`"),
    "semantic guidance": ({"semantic_guidance": object()}, "`semantic_guidance`"),
    "solver": ({"solver": "unipc"}, "`solver` unipc (its own is ddim)"),
    "steps": ({"steps": 8}, "`steps` 8 (its own is 4)"),
    "timesteps": ({"timesteps": (900, 700, 300, 100)}, "other `timesteps` than its own"),
    "photos": ({"layout_from": "faces"}, "`layout_from`"),
    "feature caching": ({"cache_every": 2}, "`cache_every`"),
}


def choose(
    asked: str | None, default: str, given: dict[str, Any], strength: float = 0.8
) -> tuple[str, str | None]:
    return settled(STUDENT, asked, default, given, strength, "tiny")


@pytest.mark.parametrize("setting", UNLIKE)
def test_a_setting_that_fast_cannot_follow_takes_best_and_says_so(setting: str) -> None:
    given, words = UNLIKE[setting]
    quality, why = choose(None, "fast", given)
    assert quality == "best" and why is not None
    assert why.startswith("Images are made at quality best, since fast cannot follow ")
    assert words in why and why.endswith(".")


@pytest.mark.parametrize("setting", UNLIKE)
def test_with_fast_asked_for_it_is_refused(setting: str) -> None:
    given, words = UNLIKE[setting]
    with pytest.raises(UserError) as error:
        choose("fast", "best", given)
    assert words in str(error.value)
    assert str(error.value).endswith('; change it, or write `quality="best"`.')


@pytest.mark.parametrize("setting", UNLIKE)
def test_best_follows_everything(setting: str) -> None:
    given, _ = UNLIKE[setting]
    assert choose("best", "fast", given) == ("best", None)
    assert choose(None, "best", given) == ("best", None)


def test_another_strength_is_named_with_those_of_the_student() -> None:
    said = "a start at strength 0.6 (its own are 0.8 and 1)"
    quality, why = choose(None, "fast", {}, 0.6)
    assert quality == "best" and said in (why or "")
    with pytest.raises(UserError, match=r"a start at strength 0\.6"):
        choose("fast", "fast", {}, 0.6)
    assert choose(None, "fast", {}, 1.0) == ("fast", None)


def test_several_settings_are_named_together() -> None:
    _, why = choose(None, "fast", {"steps": 8, "guidance": 3.0, "solver": "unipc"})
    assert why == (
        "Images are made at quality best, since fast cannot follow `solver` unipc (its own is "
        "ddim), `steps` 8 (its own is 4) and `guidance` 3 (its own is 2.5)."
    )
    with pytest.raises(UserError, match="change them, or write"):
        choose("fast", "fast", {"steps": 8, "guidance": 3.0})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"solver": "ddim", "steps": 4, "guidance": 2.5},
        {"steps": np.int64(4), "guidance": np.float32(2.5)},
        {"negative_prompt": None, "semantic_guidance": None},
    ],
)
def test_what_the_student_does_anyway_may_be_written(given: dict[str, Any]) -> None:
    assert choose(None, "fast", given) == choose("fast", "best", given) == ("fast", None)


def test_its_own_timesteps_may_be_written() -> None:
    def choice(strength: float, timesteps: Any) -> str:
        return settled(TIMED, None, "fast", {"timesteps": timesteps}, strength, "tiny")[0]

    assert choice(1.0, (999, 400)) == choice(0.8, np.array([799, 300])) == "fast"
    for strength, timesteps in (
        *((1.0, [999, 401]), (1.0, [999, 400, 1]), (0.8, [999, 400]), (0.5, [799, 300])),
        *((1.0, "999"), (1.0, 999)),
    ):
        assert choice(strength, timesteps) == "best"


@pytest.mark.parametrize("steps", [True, "4", [4, 4], np.array([4, 4])])
def test_a_setting_of_another_type_is_left_to_those_who_check_it(steps: Any) -> None:
    assert choose(None, "fast", {"steps": steps})[0] == "best"


def test_an_unknown_quality_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Unknown `quality` 'fsat'; the nearest is fast"):
        choose("fsat", "best", {})


def test_a_bundle_without_a_student_has_best_alone(tiny_bundle: Bundle) -> None:
    assert tiny_bundle.qualities == ("best",) and tiny_bundle.defaults.quality == "best"
    with pytest.raises(UserError, match=r"synfer-tiny has no quality fast; .*distilled_unet/\."):
        tiny_bundle.trajectory(quality="fast")
    assert settled(None, None, "fast", {"steps": 9}, 0.3, "tiny") == ("best", None)


def test_a_bundle_says_what_its_student_was_distilled_for(student_bundle: Bundle) -> None:
    assert student_bundle.qualities == ("best", "fast")
    assert student_bundle.defaults.quality == "fast"
    assert student_bundle.distilled == Distilled("denoiser.distilled", "ddim", 2, 3.0, (0.9, 1.0))


def test_its_trajectory_is_the_students(student_bundle: Bundle) -> None:
    schedule, kind = student_bundle.schedule, student_bundle.prediction_type
    fast, best = student_bundle.trajectory(quality="fast"), student_bundle.trajectory()
    assert (fast.denoiser, best.denoiser) == ("denoiser.distilled", "denoiser")
    wanted = trajectory("ddim", schedule, 2, 0.9, kind)
    np.testing.assert_array_equal(fast.timesteps, wanted.timesteps)
    np.testing.assert_array_equal(fast.coefficients, wanted.coefficients)
    assert len(best.timesteps) == student_bundle.defaults.steps
    with pytest.raises(UserError, match="`steps` 3"):
        student_bundle.trajectory(steps=3, quality="fast")


def test_its_steps_may_visit_timesteps_of_their_own(
    branched_bundle: Bundle, tmp_path: Path
) -> None:
    bundle = with_student(branched_bundle, tmp_path / "copy", timesteps=[[899, 300], [999, 400]])
    for strength, times in ((0.9, [899, 300]), (1.0, [999, 400])):
        way = bundle.trajectory(strength=strength, quality="fast")
        assert way.timesteps.tolist() == times and way.denoiser == "denoiser.distilled"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"denoiser": "denoiser.conditional"}, "has the denoiser 'denoiser.conditional'"),
        ({"solver": "eluer"}, "Unknown solver 'eluer'"),
        ({"solver": None}, "lacks 'solver'"),
        ({"steps": 0}, "qualities.fast.steps is 0"),
        ({"steps": 2000}, "its quality fast cannot be sampled"),
        ({"guidance": 0.5}, "qualities.fast.guidance is 0.5"),
        ({"guidance": "3"}, "qualities.fast.guidance is '3'"),
        ({"strengths": []}, "no strengths above 0"),
        ({"strengths": [0]}, "no strengths above 0"),
        ({"strengths": 0.9}, "no strengths above 0"),
        ({"strengths": [1.5]}, r"qualities.fast.strengths.0 is 1.5"),
        ({"strengths": [1.0]}, "a start at strength 0.9"),  # where sampling starts by default
        ({"timesteps": [[899], [999]]}, "not one timestep for each strength and step"),
        ({"timesteps": [899, 400]}, "not one timestep for each strength and step"),
        ({"timesteps": [[899, 400]]}, "not one timestep for each strength and step"),
        ({"timesteps": [[899, 400], [999, "5"]]}, "qualities.fast.timesteps.1.1 is '5'"),
        ({"timesteps": [[899, 400], [400, 999]]}, "`timesteps` must decrease"),
        ({"timesteps": [[999, 400], [999, 400]]}, "`timesteps` must be below 900"),
        ({"colour": "red"}, "unknown fields colour"),
    ],
)
def test_a_quality_that_cannot_be_sampled_is_refused(
    branched_bundle: Bundle, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=f"{said}.*build the bundle again"):
        with_student(branched_bundle, tmp_path / "copy", **changes)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ([], "the quality best is not"),
        ({"fast": FAST}, "the quality best is not"),
        ({"best": {"denoiser": "denoiser.conditional"}}, "the quality best is not"),
        ({"best": {"denoiser": "denoiser"}, "draft": {}}, "quality 'draft' is none of best, fast"),
        ({"best": {"denoiser": "denoiser"}, "fast": 4}, "quality 'fast' is none of"),
    ],
)
def test_other_sections_are_refused(copy: Path, section: Any, said: str) -> None:
    change(copy, lambda fields: fields.update(qualities=section))
    with pytest.raises(UserError, match=f"{said}.*build the bundle again"):
        open_bundle(copy)


@pytest.mark.parametrize("quality", ["fast", "draft"])
def test_a_default_that_the_bundle_lacks_is_refused(copy: Path, quality: str) -> None:
    change(copy, lambda fields: fields["defaults"].update(quality=quality))
    with pytest.raises(UserError, match=f"the default quality is '{quality}', not one of best"):
        open_bundle(copy)


def test_fast_needs_the_engine_of_the_student(copy: Path) -> None:
    section = {"best": {"denoiser": "denoiser"}, "fast": FAST}
    change(copy, lambda fields: fields.update(qualities=section))
    with pytest.raises(UserError, match=r"needs the engine denoiser\.distilled, which is missing"):
        open_bundle(copy)


def test_best_may_be_the_default(branched_bundle: Bundle, tmp_path: Path) -> None:
    for default in ("best", None):
        bundle = with_student(branched_bundle, tmp_path / str(default), default, strengths=[1.0])
        assert bundle.qualities == ("best", "fast") and bundle.defaults.quality == "best"
