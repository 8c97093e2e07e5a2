"""The frozen networks on a device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs synfer-rt[export]")
import torch

from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.graphs.trained_feranno import FERAnnoConfig, new_feranno
from synfer_rt.export.networks.modules import Encoder
from synfer_rt.export.training.augmentation import augmented, generators, mirrored
from synfer_rt.export.training.frozen import CleanPrediction, device_of, encoded, parts

META = torch.device("meta")


@pytest.fixture(scope="module")
def lcm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.export.tiny_checkpoint import make_lcm

    out = tmp_path_factory.mktemp("checkpoints") / "lcm"
    make_lcm(out)
    return out


@pytest.mark.parametrize("checkpoint", ["mini_checkpoint", "lcm_checkpoint"])
def test_everything_is_computed_on_the_device_that_is_named(
    checkpoint: str, request: pytest.FixtureRequest
) -> None:
    """On the device of shapes alone, which refuses tensors of another, as a GPU does."""
    read = read_checkpoint(request.getfixturevalue(checkpoint))
    config = FERAnnoConfig("affectnet-8", "a face", 16, "")
    annotator = new_feranno(read, *parts(read), config).to(META)
    encoder, draws = Encoder(read.vae).to(META), generators(0, np.arange(3))
    images = mirrored(torch.zeros(3, 3, *read.image_size, device=META), np.arange(3) % 2 == 1)
    latents = encoded(encoder, augmented(images, draws), draws)
    features, maps = annotator.read(latents)
    assert {x.device for x in (latents, *features, *maps)} == {META}
    assert annotator.head(features, maps).shape == (3, 8)
    predict = CleanPrediction(read_checkpoint(request.getfixturevalue(checkpoint)), META)
    assert predict(latents, np.array([0.1, 0.2, 0.3]), draws).device == META


def test_a_device_that_is_not_there_is_refused() -> None:
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type in ("cpu", "cuda")
    with pytest.raises(UserError, match="does not work here"):
        device_of("a gpu")
