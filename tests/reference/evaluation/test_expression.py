"""Accuracies of the judges."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

from reference.evaluation import expression, statistics


def test_a_difference_is_that_of_the_samples_to_the_renders() -> None:
    truth = np.arange(100) % 2
    renders = expression.accuracy(truth, truth, ("a", "b"))
    samples = expression.accuracy(
        np.where(np.arange(100) < 20, 1 - truth, truth), truth, ("a", "b")
    )
    value, half = expression.difference(samples, renders)
    widths = statistics.share(np.arange(100) < 80)[1], statistics.share(np.ones(100, bool))[1]
    assert value == pytest.approx(-0.2) and half == pytest.approx(np.hypot(*widths))
