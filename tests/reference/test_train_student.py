"""What the student of synfer-mini learns, from the teacher's trajectories."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("diffusers", reason="training needs synfer-rt[reference]")

import torch
from diffusers import UNet2DConditionModel

from reference import model, train_student, trajectories
from reference.train_student import Average, Examples, Training, parts
from reference.trajectories import STARTS, Trajectories
from synfer_rt.bundle import open_bundle
from synfer_rt.diffusion.solvers import trajectory
from synfer_rt.engines import default_bundle
from synfer_rt.sampling.requests import make_requests

BUNDLE = open_bundle(default_bundle())
TIMES = [799, 699, 599, 499, 399, 299, 199, 99]


def rising(count: int, aus: int = 41) -> Trajectories:
    """Trajectories whose latents grow by 1 with each state."""
    states = np.broadcast_to(np.arange(1.0, 6.0)[:, None, None, None], (count, 5, *model.LATENT))
    tokens = np.zeros((count, 48), np.int16)
    return Trajectories(states.astype(np.float16), tokens, np.zeros((count, aus), np.float16))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_part_is_a_step_of_ddim(steps: int) -> None:
    way = parts(TIMES, steps)
    known = trajectory("ddim", BUNDLE.schedule, steps, 0.8, "v_prediction")
    assert [part.timestep for part in way] == known.timesteps.tolist()
    np.testing.assert_allclose(
        [(part.kept, part.moved) for part in way], known.coefficients[:, 0, :2], atol=1e-5
    )
    assert [(part.first, part.last) for part in way] == [
        (4 * i // steps, 4 * (i + 1) // steps) for i in range(steps)
    ]


def test_the_velocity_leads_from_the_beginning_of_a_part_to_its_end() -> None:
    ways = {start: parts(TIMES, 2) for start in STARTS}
    batch = Examples({start: rising(3) for start in STARTS}, ways).draw(
        16, np.random.default_rng(0)
    )
    for latents, time, velocity in zip(batch.latents, batch.timesteps, batch.velocity, strict=True):
        (part,) = [part for part in ways["bank"] if part.timestep == time]
        assert (latents == 1 + part.first).all()
        torch.testing.assert_close(
            part.kept * latents + part.moved * velocity, torch.full_like(latents, 1 + part.last)
        )
    assert set(batch.timesteps.tolist()) == {799, 399}


def test_requests_are_drawn_as_described() -> None:
    requests = {start: make_requests(BUNDLE, layout=start, seed=1) for start in STARTS}
    drawn = [trajectories.drawn(i, requests) for i in range(300)]
    assert 0.6 < np.mean([start == "bank" for start, _ in drawn]) < 0.8
    assert all((request.layout is None) == (start == "none") for start, request in drawn)
    assert 0.04 < np.mean([not request.prompt for _, request in drawn]) < 0.17
    own = [requests[start][i].aus == request.aus for i, (start, request) in enumerate(drawn)]
    assert 0.35 < np.mean(own) < 0.55


def test_what_the_conditioner_holds_and_large_tensors_stay_the_teachers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = model.new_denoiser()
    training = Training(student, tmp_path / "student.pt", 1e-2)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    ways = {start: parts(TIMES, 2) for start in STARTS}
    batch = Examples({s: rising(4) for s in STARTS}, ways).draw(2, np.random.default_rng(0))
    for _ in range(3):  # the first two reach the output layer alone, which begins at zero
        training.step(batch, 1.0)
    changed = {
        name for name, value in student.state_dict().items() if not value.equal(before[name])
    }
    assert changed == {f"unet.{name}" for name in training.parameters}
    kept = before.keys() - changed
    assert not [n for n in changed if "text_encoder" in n or "to_v_ip" in n or "attn2.to_out" in n]
    assert all(before[name].numel() <= train_student.LARGEST for name in changed)
    assert any(before[name].numel() > train_student.LARGEST for name in kept)


def test_training_resumes_where_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = Training(model.new_denoiser(), tmp_path / "student.pt", 1e-3)
    ways = {start: parts(TIMES, 2) for start in STARTS}
    batch = Examples({s: rising(4) for s in STARTS}, ways).draw(2, np.random.default_rng(0))
    first.step(batch, 1.0)
    first.save()
    again = Training(model.new_denoiser(), tmp_path / "student.pt", 1e-3)
    assert again.steps == again.average.updates == 1
    for name, value in first.parameters.items():
        assert value.equal(again.parameters[name])
        assert first.average.values[name].equal(again.average.values[name])


def test_the_average_follows_and_swaps() -> None:
    weight = {"x": torch.nn.Parameter(torch.zeros(2))}
    average = Average(weight)
    with torch.no_grad():
        weight["x"].fill_(1.0)
    average.update(weight)
    value = float(average.values["x"][0])
    assert 0 < value < 1
    average.swap(weight)
    assert weight["x"].tolist() == [value] * 2
    assert average.values["x"].tolist() == [1.0] * 2


@pytest.mark.slow
def test_trajectories_and_training_from_the_command_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(trajectories, "CHUNK", 6)
    bundle, data, out = str(default_bundle()), tmp_path / "data", tmp_path / "out"
    made = CliRunner().invoke(
        trajectories.main,
        ["--bundle", bundle, "--out", str(data), "--count", "12", "--backend", "onnxruntime-cpu"],
        catch_exceptions=False,
    )
    assert made.exit_code == 0
    found = trajectories.read(sorted(data.glob("*.npz")))
    assert sum(len(found[start].states) for start in STARTS) == 12
    assert found["bank"].states.shape[1:] == (5, *model.LATENT)
    checkpoint = tmp_path / "checkpoint"
    model.save(checkpoint, model.new_denoiser(), model.new_vae(), {})
    arguments = ["--bundle", bundle, "--checkpoint", str(checkpoint), "--trajectories", str(data)]
    arguments += ["--out", str(out), "--minutes", "0.05", "--batch", "2"]
    trained = CliRunner().invoke(train_student.main, arguments, catch_exceptions=False)
    assert trained.exit_code == 0
    unet = UNet2DConditionModel.from_pretrained(out / "distilled_unet")
    assert unet.conv_in.weight.shape == (64, 4, 3, 3)
    assert json.loads((out / "distilled.json").read_text())["steps"] == 2
