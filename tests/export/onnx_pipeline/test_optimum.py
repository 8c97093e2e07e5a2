"""optimum's own pipelines and exporter, in the environment that `bench` makes for them.

synfer-rt bench --compare optimum-onnx --set-up
pytest -m slow tests/export/onnx_pipeline/test_optimum.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
from PIL import Image
from safetensors.torch import load_file, save_file

from synfer_rt.bench.compared import FOREIGN
from synfer_rt.bench.environments import python_of
from synfer_rt.bench.peers import SCHEDULERS
from synfer_rt.bench.worker import Worker
from synfer_rt.bundle import Bundle
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.onnx_pipeline.reading import write_checkpoint
from synfer_rt.export.onnx_pipeline.writing import write_onnx_pipeline
from tests.export.onnx_pipeline.test_writing import GUIDANCE, PROMPTS, samples

PEER = FOREIGN["optimum-onnx"]
PYTHON = python_of("optimum-onnx", PEER.environment)
"""The interpreter, found before the tests have a cache of their own."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="bench has made no environment of optimum-onnx"),
]
SOLVERS = ["ddim", "dpmpp-2m", "euler"]


def by_optimum(
    pipeline: Path, checkpoint: Path, bundle: Bundle, solver: str, start: np.ndarray, work: Path
) -> np.ndarray:
    """Images int64 [n, H, W, 3] of ORTStableDiffusionPipeline with the scheduler of a solver.

    It exports the checkpoint into the folder `pipeline` unless there is one.
    """
    name, options = SCHEDULERS[solver]
    config = json.loads((checkpoint / "scheduler/scheduler_config.json").read_text())
    config |= {"steps_offset": bundle.schedule.steps_offset, **options}
    np.save(work / "start.npy", start)
    worker = Worker(str(PYTHON), PEER.module, 1)
    try:
        worker.ask(
            "load",
            library="optimum-onnx",
            versions=PEER.environment.versions,
            checkpoint=str(checkpoint),
            converted=str(pipeline),
            threads=1,
            scheduler={"name": name, "config": config},
        )
        worker.ask(
            "run",
            prompts=PROMPTS,
            negative_prompts=["", ""],
            start=str(work / "start.npy"),
            batch=2,
            steps=5,
            guidance=GUIDANCE,
            out=str(work),
        )
    finally:
        worker.close()
    files = sorted(work.glob("0*.png"))
    return np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)


def as_published(checkpoint: Path, out: Path) -> Path:
    """A copy with the names of transformers 4 in the text encoder, without which it reads none."""
    shutil.copytree(checkpoint, out)
    file = out / "text_encoder/model.safetensors"
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    return out


@pytest.mark.parametrize("solver", SOLVERS)
def test_its_pipeline_makes_the_images_of_the_bundle_with_aus_at_zero(
    mini_checkpoint: Path, mini_bundle: Bundle, tmp_path: Path, solver: str
):
    write_onnx_pipeline(mini_checkpoint, tmp_path / "pipeline", remark=lambda line: None)
    wanted, start, _ = samples(mini_bundle, solver)
    found = by_optimum(tmp_path / "pipeline", mini_checkpoint, mini_bundle, solver, start, tmp_path)
    assert np.abs(found - wanted).max() <= 1


def test_what_it_exports_comes_back_as_the_checkpoint(
    plain_checkpoint: Path, plain_bundle: Bundle, tmp_path: Path
):
    wanted, start, _ = samples(plain_bundle, "ddim")
    pipeline, checkpoint = tmp_path / "pipeline", as_published(plain_checkpoint, tmp_path / "plain")
    found = by_optimum(pipeline, checkpoint, plain_bundle, "ddim", start, tmp_path)
    assert np.abs(found - wanted).max() <= 1
    write_checkpoint(pipeline, tmp_path / "again")
    one, other = read_checkpoint(checkpoint), read_checkpoint(tmp_path / "again")
    for part in ("unet", "vae", "text_encoder"):
        tensors = getattr(other, part).state_dict()
        for name, tensor in getattr(one, part).state_dict().items():
            np.testing.assert_array_equal(tensors[name], tensor, name)
