"""What the diffusion training shows the model, and what it keeps."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("diffusers", reason="training needs synfer-rt[reference]")

import torch
from safetensors.torch import load_file
from torch.distributed import run

from reference import model, train_diffusion
from reference.learning_curve import held_out_losses
from reference.renders import Renders
from reference.train_diffusion import Examples, Latents
from synfer_rt.vocabulary import facs

FACES = 240


@pytest.fixture(scope="module", name="annotations")
def annotations_of_faces() -> dict[str, np.ndarray]:
    """A quarter of the faces have an expression."""
    rng = np.random.default_rng(0)
    return {
        "label": np.where(np.arange(FACES) % 4 == 0, np.arange(FACES) % 8, -1),
        "identity": np.arange(FACES) // 2,
        "au": rng.uniform(0.1, 1, (FACES, len(facs.OPENGRAPHAU_41))),
        **{name: np.zeros(FACES) for name in ("age", "gender", "beard", "eye_closure")},
        **{name: np.zeros(FACES, int) for name in ("hair_style", "hair_color")},
        "background": np.full(FACES, 0.5),
        "ancestry": np.tile([1.0, 0, 0], (FACES, 1)),
        "pose": np.zeros((FACES, 3)),
        "light": np.zeros((FACES, 4)),
    }


@pytest.fixture(scope="module")
def examples(annotations) -> Examples:
    """Black faces whose latents are 0."""
    shape = (2, FACES, *model.LATENT)
    data = Renders(np.zeros((FACES, 1, 1, 3), np.uint8), annotations, "key")
    return Examples(data, Latents(np.zeros(shape, np.float16), np.zeros(shape, np.float16)))


def test_the_loss_is_zero_for_the_velocity_alone() -> None:
    alphas = torch.tensor([1.0, 0.64, 0.0])
    x, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    # v = alpha noise - sigma x (arXiv 2202.00512, appendix D), of noised alpha x + sigma noise.
    velocity = torch.stack([noise[0], 0.8 * noise[1] - 0.6 * x[1], -x[2]])
    noised = torch.stack([x[0], 0.8 * x[1] + 0.6 * noise[1], noise[2]])

    def predict(seen, timesteps, tokens, aus):
        torch.testing.assert_close(seen, noised)
        return velocity + torch.arange(3.0).view(-1, 1, 1, 1)

    loss = train_diffusion.velocity_loss(
        predict, (x, None, None), torch.arange(3), alphas, torch.ones(2, 2), noise
    )
    torch.testing.assert_close(loss, torch.tensor([0.0, 1.0, 4.0]))


def test_weights_are_those_of_min_snr() -> None:
    snr = torch.tensor([0.0, 1.0, 5.0, 99.0])
    weights = train_diffusion.min_snr_weight(snr / (1 + snr))
    # min(SNR, 5) / (SNR + 1), arXiv 2303.09556, but not below a quarter.
    torch.testing.assert_close(weights, torch.tensor([0.25, 0.5, 5 / 6, 0.25]))


def test_half_of_a_batch_has_an_expression_however_rare_they_are(examples: Examples) -> None:
    drawn = examples.draw(np.arange(FACES), 24, np.random.default_rng(1))
    assert (examples.labels[drawn] >= 0).sum() == 12


def test_expressions_meet_every_noise_level(examples: Examples) -> None:
    rng = np.random.default_rng(2)
    named = [examples.labels[examples.draw(np.arange(FACES), 24, rng)] >= 0 for _ in range(200)]
    # Noise levels rise along the batch; so no place in it may be reserved for one kind.
    assert np.abs(np.mean(named, 0) - 0.5).max() < 0.15


def test_text_and_action_units_are_dropped_as_often_as_is_said(examples: Examples) -> None:
    rows = np.arange(FACES).repeat(20)
    _, tokens, aus = examples.batch(rows, np.random.default_rng(3))
    empty = torch.tensor(examples.tokenizer.encode("").ids)
    silent, still = (tokens == empty).all(1), (aus == 0).all(1)
    shares = [x.float().mean().item() for x in (silent & ~still, silent & still)]
    wanted = [train_diffusion.DROP_TEXT, train_diffusion.DROP_BOTH]
    np.testing.assert_allclose(shares, wanted, atol=0.02)
    by_words = (~silent & still).numpy()
    named = examples.labels[rows] >= 0
    assert not by_words[~named].any()
    assert by_words[named & ~silent.numpy()].mean() == pytest.approx(
        train_diffusion.DROP_AUS, abs=0.05
    )
    sentences = examples.tokenizer.decode_batch(tokens[by_words].tolist())
    assert all("face" in sentence for sentence in sentences)


def test_latents_are_kept_by_what_they_were_made_of(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(train_diffusion, "SHARD", 2)
    vae = model.new_vae().eval()
    images = np.random.default_rng(4).integers(0, 256, (5, 64, 64, 3), np.uint8)
    files = train_diffusion.caches_of(vae, images, tmp_path)
    assert files[:1] == train_diffusion.caches_of(vae, images[:3], tmp_path)[:1]
    for i, file in enumerate(files):
        train_diffusion.encode(vae, images[2 * i : 2 * i + 2], file)
    kept = train_diffusion.read_latents(files)
    assert kept.mean.shape == (2, 5, *model.LATENT)
    with torch.no_grad():
        mirrored = model.posterior(vae, train_diffusion.as_input(images[4:, :, ::-1]))
    np.testing.assert_allclose(kept.mean[1, 4:], mirrored.mean, atol=2e-3)
    np.testing.assert_allclose(kept.std[1, 4:], mirrored.std, atol=2e-3)
    torch.nn.init.zeros_(vae.decoder.conv_out.weight)
    assert files == train_diffusion.caches_of(vae, images, tmp_path)
    with torch.no_grad():
        vae.encoder.conv_in.weight.add_(1)
    assert not set(files) & set(train_diffusion.caches_of(vae, images, tmp_path))


def test_a_snapshot_is_the_averaged_weights_in_half_precision(tmp_path: Path) -> None:
    average = {"weight": torch.randn(3, 2), "steps": torch.tensor(7)}
    train_diffusion.snapshot(tmp_path, average, 1234)
    (file,) = (tmp_path / "snapshots").iterdir()
    kept = load_file(file)
    assert file.name == "000001234.safetensors"
    torch.testing.assert_close(kept["weight"], average["weight"].half())
    assert kept["steps"] == 7


def test_torchrun_takes_no_option_for_its_own() -> None:
    options = [name for option in train_diffusion.main.params for name in option.opts]
    launched = run.parse_args(["-m", "reference.train_diffusion", *options])
    assert launched.training_script_args == options


@pytest.fixture
def train(tmp_path: Path, shipped_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, annotations):
    """Runs the command for a second as torchrun runs a process of one; returns its `--out`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in here.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(train_diffusion, "CHECKPOINT_SECONDS", 0.5)
    images = np.random.default_rng(0).integers(0, 256, (FACES, 64, 64, 3), np.uint8)
    (tmp_path / "renders").mkdir()
    np.savez(tmp_path / "renders" / "00000.npz", images=images, **annotations)

    def invoke(name: str, *options: str | Path) -> Path:
        out = tmp_path / name
        given = ["--renders", tmp_path / "renders", "--vae", shipped_checkpoint / "vae"]
        given += ["--out", out, "--minutes", 0.02, "--batch", 2, *options]
        result = CliRunner().invoke(train_diffusion.main, [str(option) for option in given])
        assert result.exit_code == 0, result.output
        return out

    return invoke


def test_a_training_that_stopped_goes_on(train) -> None:
    out = train("run", "--bf16")
    file, name = out / "diffusion.pt", "unet.conv_in.weight"
    first = torch.load(file, weights_only=True)
    for weights in (first["model"], first["average"]):
        weights[name] += 5  # To be told from those that any training begins with.
    torch.save(first, file)
    train("run", "--bf16")
    second = torch.load(file, weights_only=True)
    assert 0 < first["seen"] < second["seen"] == 2 * second["steps"]
    assert (out / "snapshots" / f"{second['seen']:09d}.safetensors").exists()
    assert {int(one["step"]) for one in second["optimizer"]["state"].values()} == {second["steps"]}
    for kind in ("model", "average"):
        assert second[kind][name].dtype == torch.float32
        assert 0 < (second[kind][name] - first[kind][name]).abs().max() < 1
    curve = held_out_losses((out / "diffusion.log").read_text())
    assert len(curve) >= 2 and (np.diff(curve[:, 0]) > 0).all()
    assert np.isfinite(curve).all()


def test_a_training_from_a_checkpoint_begins_with_its_weights(
    train, shipped_checkpoint: Path
) -> None:
    out = train("run", "--weights", shipped_checkpoint)
    begun = train_diffusion.images_seen(shipped_checkpoint)
    first, last = sorted((out / "snapshots").glob("*.safetensors"))
    assert int(first.stem) == begun < int(last.stem)
    shipped = model.load(shipped_checkpoint)[0].state_dict()
    for name, value in load_file(first).items():
        torch.testing.assert_close(value.float(), shipped[name].half().float(), rtol=0, atol=0)
