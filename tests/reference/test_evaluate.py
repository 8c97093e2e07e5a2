"""What is asked of a bundle when it is judged."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

from reference import evaluate
from synfer_rt import prompts
from synfer_rt.plan import make_plan


@pytest.mark.parametrize("expression", prompts.EXPRESSION_WORDS)
def test_a_sweeps_prompt_is_the_whole_sentence_without_its_expression(expression):
    rng = np.random.default_rng(0)
    for _ in range(50):
        face, u = prompts.draw(rng.random(prompts.DRAWS)), rng.random(3).tolist()
        said = evaluate.without_expression(prompts.describe(face, expression, u))
        assert said == prompts.describe(face, None, u)


def test_a_sweep_changes_one_unit_on_one_face(tiny_bundle):
    requests = evaluate.sweeps(make_plan(tiny_bundle, seed=7), faces=2)
    assert len(requests) == len(evaluate.SWEPT) * 2 * len(evaluate.SWEEP)
    first = requests[: len(evaluate.SWEEP)]
    assert [request.aus for request in first] == [{"AU1": float(x)} for x in evaluate.SWEEP]
    assert len({(r.index, r.seed, r.prompt, r.layout) for r in first}) == 1


def test_the_machine_is_the_benchmarks():
    from synfer_rt.bench.machine import describe

    about = describe(1, ())
    assert evaluate.machine() == f"{about['cpu']}, {about['cores']} cores"
