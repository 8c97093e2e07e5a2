"""Temperatures by likelihood."""

from __future__ import annotations

import numpy as np
import pytest

from synfer_rt.judging.temperature import (
    LARGEST,
    fitted_temperature,
    log_loss,
    logarithms,
    softmax,
    tempered,
)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_is_found_by_which_logits_were_scaled(temperature: float) -> None:
    draw = np.random.default_rng(0)
    logits = 2 * draw.standard_normal((20000, 4))
    classes = (softmax(logits).cumsum(1) < draw.random((20000, 1))).sum(1)
    assert fitted_temperature(temperature * logits, classes) == pytest.approx(temperature, rel=0.03)


def test_images_that_are_all_read_rightly_do_not_make_a_network_certain() -> None:
    logits = np.tile(4 * np.eye(3), (10, 1))
    classes = np.tile(np.arange(3), 10)
    temperature = fitted_temperature(logits, classes)
    # The smoothed target of Platt (1999) is the optimum, as every image has the same logits.
    assert softmax(logits / temperature).max(1)[0] == pytest.approx(31 / 32, abs=1e-6)


def test_of_probabilities_it_has_the_least_loss() -> None:
    draw = np.random.default_rng(1)
    shares = draw.dirichlet(np.full(7, 0.4), 5000)
    classes = (shares.cumsum(1) > draw.random((5000, 1))).argmax(1)
    harsh = tempered(shares, 0.4)
    best = fitted_temperature(logarithms(harsh), classes)
    losses = [log_loss(tempered(harsh, best * x), classes) for x in (0.93, 1, 1.07)]
    assert losses[1] < min(losses[0], losses[2]) and best == pytest.approx(2.5, rel=0.1)


def test_it_stays_within_bounds() -> None:
    logits = np.array([[1.0, 0.0]] * 9)
    assert fitted_temperature(logits, np.ones(9, int)) == pytest.approx(LARGEST)
    assert fitted_temperature(logits[:0], np.zeros(0, int)) == 1


def test_a_temperature_of_one_changes_nothing() -> None:
    shares = np.random.default_rng(2).dirichlet(np.ones(5), 4)
    np.testing.assert_array_equal(tempered(shares, 1), shares)
    np.testing.assert_allclose(tempered(shares, 2).sum(1), 1)
