"""What networks learn of renders."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch (synfer-rt[reference])")

import torch

from reference import tasks

GROUPS = {"first": ("a", "b"), "second": ("c", "d", "e")}
CHOICE = tasks.choices(lambda table: table["x"], GROUPS)


def test_each_group_is_chosen_for_itself():
    outputs = np.array([[0.0, 1, 9, 0, 0], [5, 1, 0, 1, 2]])
    assert CHOICE.outputs == 5
    assert tasks.chosen(outputs, GROUPS).tolist() == [[1, 0], [0, 2]]


def test_an_unknown_target_pulls_nowhere():
    outputs = torch.zeros(2, 5, requires_grad=True)
    CHOICE.loss(outputs, torch.tensor([[0, -1], [1, 2]])).backward()
    assert outputs.grad is not None
    assert outputs.grad[0, 2:].abs().max() == 0 and outputs.grad[1, 2:].abs().min() > 0
    nothing = CHOICE.loss(outputs, torch.tensor([[0, -1], [1, -1]]))
    assert bool(nothing.isfinite())


def test_the_loss_of_expressions_is_the_mean_cross_entropy():
    torch.manual_seed(0)
    outputs, target = torch.randn(6, len(tasks.CLASSES)), torch.arange(6)
    expected = torch.nn.functional.cross_entropy(outputs, target, label_smoothing=0.05)
    assert torch.allclose(tasks.EXPRESSION.loss(outputs, target[:, None]), expected)


def test_scores_leave_unknown_targets_out():
    outputs = np.eye(5)[[0, 1]] + np.eye(5)[[2, 3]]
    first, second = CHOICE.scores(outputs, np.array([[0, -1], [0, 1]]))
    assert first.startswith("held-out first 0.500 on 2 renders: a 0.50")
    assert second.startswith("held-out second 1.000 on 1 renders")
