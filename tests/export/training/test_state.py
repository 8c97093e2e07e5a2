"""Settings and states of trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs synfer-rt[export]")
import torch

from synfer_rt.errors import UserError
from synfer_rt.export.training import state


def trained(steps: int, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for step in range(steps):
        loss = network(torch.full((2, 3), 1.0 + step)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def new() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    return network, torch.optim.AdamW(network.parameters(), 0.01)


def test_a_restored_training_goes_on_bit_by_bit(tmp_path: Path) -> None:
    network, optimizer = new()
    trained(3, network, optimizer)
    state.keep(tmp_path, network, optimizer, 2)
    again, other = new()
    assert state.restore(tmp_path, again, other) == 2
    trained(3, network, optimizer)
    trained(3, again, other)
    for one, two in zip(network.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    state.begin(tmp_path / "own", {"width": 16, "data": "a" * 64})
    state.begin(tmp_path / "own", {"width": 16, "data": "a" * 64})
    with pytest.raises(UserError, match="begun with `width=16`, and this has `width=32`"):
        state.begin(tmp_path / "own", {"width": 32, "data": "a" * 64})
    with pytest.raises(UserError, match="the data of hash aaaaaaaa"):
        state.begin(tmp_path / "own", {"width": 16, "data": "b" * 64})


def test_a_finished_training_has_its_epochs_and_no_fewer(tmp_path: Path) -> None:
    assert not state.is_finished(tmp_path, 3)
    state.keep(tmp_path, *new(), 3)
    assert state.is_finished(tmp_path, 3) and not state.is_finished(tmp_path, 4)
    with pytest.raises(UserError, match="has done 3 epochs already"):
        state.is_finished(tmp_path, 2)


def test_a_torn_state_is_refused(tmp_path: Path) -> None:
    state.keep(tmp_path, *new(), 3)
    file = tmp_path / "state.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UserError, match="remove it to begin again"):
        state.restore(tmp_path, *new())
