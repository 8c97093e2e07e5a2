"""Trained parts become the checkpoint that engines are built from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("diffusers", reason="training needs synfer-rt[reference]")

import onnxruntime
import torch
from diffusers import UNet2DConditionModel

from reference import assemble, classifiers, model, train_student
from reference.renders import Renders
from synfer_rt.export.checkpoint.reading import read_checkpoint

AGES, YAWS = (0.3, 0.65), (0.0, 0.1, 0.5)


@pytest.fixture
def faces() -> Renders:
    """Of each person, a young and a middle-aged face from three sides, neutral and happy."""
    rng = np.random.default_rng(0)
    table = np.stack(np.meshgrid(range(34), AGES, YAWS, (0, 1), indexing="ij"), -1).reshape(-1, 4)
    person, age, yaw, label = table.T
    n = len(table)
    annotations = {
        "label": label.astype(np.int8),
        "identity": person.astype(int),
        "age": age,
        "ancestry": np.where(person[:, None] % 4 == 3, 0.5, [[0, 1.0, 0]]),
        "pose": np.stack([yaw, 0 * yaw, 0 * yaw], 1),
        "light": np.zeros((n, 4)),
        "background": np.full(n, 0.5),
        **{name: np.zeros(n) for name in ("gender", "beard", "eye_closure")},
        **{name: np.zeros(n, int) for name in ("hair_style", "hair_color")},
    }
    return Renders(rng.integers(0, 256, (n, 64, 64, 3), np.uint8), annotations, "key")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without a student."""
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("teacher") / "checkpoint"
    settings = assemble.SETTINGS | {"version": "1", "defaults": assemble.DEFAULTS}
    model.save(out, model.new_denoiser(), model.new_vae(), settings)
    return out


def test_a_student_becomes_part_of_the_checkpoint(teacher: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(teacher, tmp_path / "checkpoint"))
    student = model.load(teacher)[0]
    torch.nn.init.ones_(student.unet.conv_in.weight)
    distilled = {"solver": "ddim", "steps": 2, "guidance": 2.5, "strengths": [0.8, 1.0]}
    train_student.write(student, tmp_path / "student", distilled)
    assemble.add_student(tmp_path / "student", checkpoint)
    read = read_checkpoint(checkpoint)
    assert read.settings.distilled == distilled
    assert read.settings.defaults == assemble.DEFAULTS | {"quality": "fast", "layout": "none"}
    found: Any = UNet2DConditionModel.from_pretrained(checkpoint / "distilled_unet")
    assert found.conv_in.weight.eq(1).all()


@torch.no_grad()
def test_the_bank_holds_plain_neutral_faces_of_people_trained_on(
    faces: Renders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "LAYOUTS", 8)
    vae = model.new_vae().eval()
    bank = assemble.layout_bank(faces, vae)
    assert sorted(bank["age"]) == ["middle-aged"] * 4 + ["young"] * 4
    assert set(bank["ancestry"]) == {"East Asian"} and set(bank["gender"]) == {"female"}
    table = faces.annotations
    fit = (table["label"] == 0) & (table["pose"][:, 0] < 0.25) & (table["identity"] % 4 != 3)
    fit = np.intersect1d(np.flatnonzero(fit), faces.rows(held_out=False))
    latents = model.posterior(vae, classifiers.as_input(faces.images[fit])).mean
    for latent in torch.from_numpy(bank["latents"]).float():
        assert (latents - latent).abs().amax((1, 2, 3)).min() < 1e-2


def test_a_checkpoint_holds_the_averaged_weights_and_the_labellers(
    faces: Renders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    denoiser = model.new_denoiser()
    last = {k: torch.zeros_like(v) for k, v in denoiser.state_dict().items()}
    state = {"model": last, "average": denoiser.state_dict(), "seen": 7000}
    torch.save(state, tmp_path / "diffusion.pt")
    model.new_vae().save_pretrained(tmp_path / "vae")
    names = ("labeller", "second-labeller", "au-labeller")
    for name in names:
        classifiers.save(classifiers.NETWORKS[name].build(), tmp_path, name)
    monkeypatch.setattr(assemble.renders, "load", lambda *_: faces)
    options = ["--renders", tmp_path, "--diffusion", tmp_path, "--vae", tmp_path / "vae"]
    options += ["--classifiers", tmp_path, "--version", "1.2.3", "--out", tmp_path / "made"]
    CliRunner().invoke(assemble.main, [str(option) for option in options], catch_exceptions=False)
    settings = json.loads((tmp_path / "made" / "synfer.json").read_text())
    assert (settings["version"], settings["images_seen"]) == ("1.2.3", 7000)
    read = model.load(tmp_path / "made")[0].state_dict()
    for name, weights in denoiser.state_dict().items():
        torch.testing.assert_close(read[name], weights, atol=1e-3, rtol=1e-3)
    files = ("classifiers/residual.onnx", "classifiers/dense.onnx", "au_reader.onnx")
    images = faces.images[:3]
    for name, file in zip(names, files, strict=True):
        session = onnxruntime.InferenceSession(tmp_path / "made" / file)
        (logits,) = session.run(None, {"images": classifiers.as_input(images).numpy()})
        wanted = classifiers.predict(classifiers.load(tmp_path, name), images)
        np.testing.assert_allclose(np.asarray(logits), wanted, atol=1e-4)
