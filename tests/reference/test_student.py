"""A student outside a bundle samples as its engine would, from whichever file it is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs synfer-rt[reference]")

import torch
from diffusers import UNet2DConditionModel

from reference import model, student
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint is unpacked once."""
    return tmp_path_factory.mktemp("work")


def save_unet(denoiser: model.Denoiser, folder: Path) -> None:
    """A diffusers UNet folder, as it lies in a checkpoint: without the AU adapter."""
    bare = UNet2DConditionModel.from_config(denoiser.unet.config)
    assert isinstance(bare, UNet2DConditionModel)
    state = {k: v for k, v in denoiser.unet.state_dict().items() if "to_v_ip" not in k}
    bare.load_state_dict(state)
    bare.save_pretrained(folder)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m"])
def test_the_teacher_as_a_student_makes_what_its_engines_make_unguided(
    bundle: Bundle, work: Path, solver: str
) -> None:
    sampler = Sampler.of(bundle, "onnxruntime-cpu", 1)
    one = student.Student(student.teacher(bundle, work), sampler)
    for layout, strength in (("bank", 0.8), ("none", 1.0)):
        way = bundle.trajectory(solver, 3, strength)
        requests = make_requests(bundle, layout=layout, seed=5, guidance=1.0)[:2]
        starts = sampler.start(requests, way)
        made = one.latents(requests, way)
        np.testing.assert_allclose(made, sampler.denoised(requests, starts, way), atol=2e-3)
        guided = [replace(request, guidance=2.5) for request in requests]
        assert np.abs(made - sampler.denoised(guided, starts, way)).max() > 0.1


def test_a_state_and_a_unet_folder_are_the_same_student(bundle: Bundle, work: Path) -> None:
    changed = student.teacher(bundle, work)
    before = student.digest(changed)
    with torch.no_grad():
        changed.unet.conv_out.weight.mul_(1.5)
    save_unet(changed, work / "unet")
    part = {"conv_out.weight": changed.unet.conv_out.weight.detach()}
    torch.save({"average": part}, work / "part.pt")
    for path in (work / "unet", work / "part.pt"):
        assert student.digest(student.load(path, bundle, work)) == student.digest(changed) != before


def test_weights_of_another_model_are_refused(bundle: Bundle, work: Path) -> None:
    torch.save({"model": {}}, work / "none.pt")
    with pytest.raises(SystemExit, match="has no average"):
        student.load(work / "none.pt", bundle, work)
    torch.save({"average": {"conv_in.weight": torch.zeros(1)}}, work / "other.pt")
    with pytest.raises(SystemExit, match="does not fit synfer-mini"):
        student.load(work / "other.pt", bundle, work)


def test_images_are_kept_for_the_same_weights_only(bundle: Bundle, tmp_path: Path, work: Path):
    denoiser = student.teacher(bundle, work)
    one = student.Student(denoiser, Sampler.of(bundle, "onnxruntime-cpu", 1))
    requests, way = make_requests(bundle, seed=5)[:2], bundle.trajectory("ddim", 1)
    images = [one.kept(requests, way, tmp_path, "sampling")]
    torch.nn.init.zeros_(denoiser.unet.conv_out.weight)
    images.append(one.kept(requests, way, tmp_path, "sampling"))
    assert images[0].shape == (2, 64, 64, 3) and images[0].dtype == np.uint8
    assert not np.array_equal(images[0], images[1]) and len(list(tmp_path.iterdir())) == 2
