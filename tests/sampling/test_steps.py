"""Which engine computes each step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.sampling.steps import Step, engines_of, plan

GUIDED, BOTH_AT_1 = Step("denoiser", guided=True), Step("denoiser", guided=False)
ALONE = Step("denoiser.conditional", guided=False)


def scales(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_guided_steps_need_both_branches(branched_bundle: Bundle, way: Trajectory) -> None:
    assert plan(branched_bundle, way, scales(2.0, 3.0)) == (GUIDED,) * 4


def test_a_piece_without_guidance_runs_the_conditional_branch_alone(
    branched_bundle: Bundle, tiny_bundle: Bundle, way: Trajectory
) -> None:
    assert plan(branched_bundle, way, scales(1.0, 1.0)) == (ALONE,) * 4
    assert plan(tiny_bundle, way, scales(1.0, 1.0)) == (BOTH_AT_1,) * 4


def test_one_guided_image_needs_both_branches_for_its_piece(
    branched_bundle: Bundle, way: Trajectory
) -> None:
    assert plan(branched_bundle, way, scales(1.0, 2.0)) == (GUIDED,) * 4


def test_guidance_acts_where_the_trajectory_says(
    branched_bundle: Bundle, tiny_bundle: Bundle, way: Trajectory
) -> None:
    part = replace(way, guided=np.array([False, True, True, False]))
    assert plan(branched_bundle, part, scales(2.0)) == (ALONE, GUIDED, GUIDED, ALONE)
    assert plan(branched_bundle, part, scales(1.0)) == (ALONE,) * 4
    assert plan(tiny_bundle, part, scales(2.0)) == (BOTH_AT_1, GUIDED, GUIDED, BOTH_AT_1)


def test_a_distilled_model_makes_every_step(branched_bundle: Bundle, way: Trajectory) -> None:
    student = replace(way, denoiser="denoiser.distilled")
    assert (
        plan(branched_bundle, student, scales(2.5))
        == (Step("denoiser.distilled", guided=False),) * 4
    )


def test_engines_are_named_once_in_the_order_of_their_first_step() -> None:
    assert engines_of((ALONE, GUIDED, ALONE)) == ("denoiser.conditional", "denoiser")


def test_only_engines_of_both_branches_read_the_negative_prompt() -> None:
    student = Step("denoiser.distilled", guided=False)
    found = [step.reads_both_branches for step in (GUIDED, BOTH_AT_1, ALONE, student)]
    assert found == [True, True, False, False]
