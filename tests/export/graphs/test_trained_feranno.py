"""FERAnno on tiny checkpoints: what it reads, and the engine that it becomes."""

from __future__ import annotations

import json
import shutil
from operator import attrgetter
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch

from synfer_rt.errors import UserError
from synfer_rt.export.build.verify import max_relative_error, references
from synfer_rt.export.checkpoint.contents import FERANNO_FOLDER, Checkpoint
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.graphs import trained_feranno as feranno
from synfer_rt.export.networks.feranno import FERAnno
from synfer_rt.export.networks.modules import Conditioner, Denoiser
from synfer_rt.export.onnx.forward_graph import export_onnx
from synfer_rt.export.onnx.shared_weights import copy_with_weights, share_weights

SCHEME = "affectnet-7"


def parts(checkpoint: Checkpoint) -> tuple[Conditioner, Denoiser]:
    conditioner = Conditioner(
        checkpoint.text_encoder,
        checkpoint.unet,
        checkpoint.adapter,
        checkpoint.settings.class_labels,
    ).eval()
    return conditioner, Denoiser(checkpoint.unet, conditioner.outputs, checkpoint.adapter).eval()


def build(checkpoint: Checkpoint) -> tuple[FERAnno, feranno.FERAnnoConfig]:
    """A head of random weights whose normalisation has seen a few latents."""
    torch.manual_seed(3)
    print_ = feranno.model_fingerprint(checkpoint)
    config = feranno.FERAnnoConfig(SCHEME, feranno.prompt_of(SCHEME), 16, print_)
    annotator = feranno.new_feranno(checkpoint, *parts(checkpoint), config)
    with torch.no_grad():
        annotator.head.train()(*annotator.read(latents(8)))
    return annotator.eval(), config


def latents(batch: int) -> torch.Tensor:
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(batch))


@pytest.fixture(scope="module")
def checkpoint(
    mini_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkpoint, FERAnno]:
    """A checkpoint with an annotator in its folder, and that annotator."""
    directory = tmp_path_factory.mktemp("annotated") / "mini"
    shutil.copytree(mini_checkpoint, directory)
    read = read_checkpoint(directory)
    annotator, config = build(read)
    feranno.save_head(directory / FERANNO_FOLDER, annotator.head.state_dict(), config)
    return read, annotator


def test_probabilities_are_a_distribution_over_its_scheme(checkpoint) -> None:
    _, annotator = checkpoint
    with torch.no_grad():
        found = annotator(latents(5))
    assert found.shape == (5, 7)
    torch.testing.assert_close(found.sum(1), torch.ones(5))
    assert (found[0] - found[1]).abs().max() > 1e-4


def test_an_image_does_not_depend_on_its_batch(checkpoint) -> None:
    _, annotator = checkpoint
    with torch.no_grad():
        together, alone = annotator(latents(5)), annotator(latents(5)[3:4])
    torch.testing.assert_close(together[3:4], alone, atol=1e-5, rtol=0)


def test_the_unet_sees_the_latents_at_the_first_timestep_without_noise(checkpoint) -> None:
    read, annotator = checkpoint
    seen = {}
    unet = read.unet
    unet.conv_in.register_forward_pre_hook(lambda _, x: seen.update(latents=x[0]))
    unet.time_proj.register_forward_pre_hook(lambda _, x: seen.update(timestep=x[0]))
    with torch.no_grad():
        annotator(latents(2))
    torch.testing.assert_close(seen["latents"], annotator.signal * latents(2))
    assert 0.99 < annotator.signal < 1 and set(seen["timestep"].tolist()) == {1.0}


def test_maps_are_the_attention_of_the_prompt_s_tokens(checkpoint) -> None:
    _, annotator = checkpoint
    with torch.no_grad():
        features, maps = annotator.read(latents(2))
    assert len(features) == 1 and len(maps) == 3  # one level: a layer before, two after
    heads = torch.cat(maps, 1).unflatten(1, (-1, annotator.tokens))
    torch.testing.assert_close(heads.sum(2), torch.ones(2, heads.shape[1], 8, 8))
    assert heads.std(2).max() > 1e-3


def test_every_scale_of_a_deeper_unet_is_read(sd_checkpoint: Path) -> None:
    annotator, _ = build(read_checkpoint(sd_checkpoint))
    with torch.no_grad():
        features, maps = annotator.read(latents(2))
        assert annotator(latents(2)).shape == (2, 7)
    assert [tuple(x.shape[2:]) for x in features] == [(4, 4), (8, 8), (8, 8)]
    assert {tuple(x.shape[2:]) for x in maps} == {(4, 4), (8, 8)}


def test_reading_leaves_the_denoiser_as_it_was(mini_checkpoint: Path) -> None:
    read = read_checkpoint(mini_checkpoint)
    conditioner, denoiser = parts(read)
    with torch.no_grad():
        tokens = torch.zeros(2, 2, 24, dtype=torch.int64)
        conditioning = conditioner(tokens, torch.rand(2, 2, 41), torch.ones(2))
        history, matrix = torch.zeros(2, 3, 4, 8, 8), torch.ones(4, 5)
        given = (latents(2), history, torch.tensor(9.0), torch.ones(2), matrix, *conditioning)
        before = denoiser(*given)
        config = feranno.FERAnnoConfig(SCHEME, feranno.prompt_of(SCHEME), 16, "")
        feranno.new_feranno(read, conditioner, denoiser, config).eval()(latents(2))
        for one, other in zip(before, denoiser(*given), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


class TestFiles:
    def test_what_is_saved_is_read(self, checkpoint) -> None:
        read, annotator = checkpoint
        found = feranno.read_feranno(read, *parts(read))
        assert found[1] == SCHEME
        with torch.no_grad():
            torch.testing.assert_close(found[0](latents(3)), annotator(latents(3)))

    @pytest.mark.parametrize("part", ["unet", "text_encoder", "adapter.projection"])
    def test_one_of_another_model_is_refused(self, checkpoint, part: str) -> None:
        read, _ = checkpoint
        again = read_checkpoint(read.directory)
        next(iter(attrgetter(part)(again).parameters())).data += 0.1
        with pytest.raises(UserError, match="another UNet, text encoder or AU adapter"):
            feranno.read_feranno(again, *parts(again))

    def test_files_that_do_not_fit_are_refused(self, checkpoint, tmp_path: Path) -> None:
        read, _ = checkpoint
        shutil.copytree(read.directory, tmp_path / "broken")
        config = tmp_path / "broken" / "annotator" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"width": 32}))
        broken = read_checkpoint(tmp_path / "broken")
        with pytest.raises(UserError, match="does not hold a FERAnno that fits"):
            feranno.read_feranno(broken, *parts(broken))


@pytest.fixture(scope="module")
def engine(checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "feranno.onnx"
    given = {"latents": latents(2)}
    export_onnx(checkpoint[1], given, ("probabilities",), frozenset(), path, "fp32")
    return path


def cases(annotator: FERAnno) -> list:
    return references(annotator, lambda batch, size=None: {"latents": latents(batch)})


def test_the_engine_equals_pytorch_at_any_batch(checkpoint, engine: Path) -> None:
    assert max_relative_error(engine, cases(checkpoint[1])) < 1e-4


def test_the_engine_shares_the_weights_of_the_denoiser(
    checkpoint, engine: Path, mini_bundle, tmp_path: Path
) -> None:
    for path in (engine, mini_bundle.path / "denoiser.onnx"):
        copy_with_weights(path, tmp_path / path.name)
    owner, borrower = tmp_path / "denoiser.onnx", tmp_path / "feranno.onnx"
    before = borrower.stat().st_size
    saved = share_weights([owner, borrower])
    unet = sum(p.numel() * 4 for p in checkpoint[0].unet.parameters() if p.numel() >= 256)
    assert saved > 0.8 * unet
    assert borrower.stat().st_size < before - 0.95 * saved
    assert (tmp_path / "denoiser.onnx.data").is_file()
    assert max_relative_error(borrower, cases(checkpoint[1])) < 1e-4
