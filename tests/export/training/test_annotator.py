"""FERAnno's training on a tiny UNet, from photos to the head that is built."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs synfer-rt[export]")
import torch
from safetensors.torch import load_file

from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.datasets.items import load
from synfer_rt.errors import UserError
from synfer_rt.export import train_annotator
from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.graphs import trained_feranno
from synfer_rt.export.networks.feranno import FERAnno
from synfer_rt.export.networks.modules import Encoder
from synfer_rt.export.training import features
from synfer_rt.export.training.augmentation import as_input
from synfer_rt.export.training.calibration import calibration_error
from synfer_rt.export.training.frozen import encoded, parts
from synfer_rt.export.training.stages import silent
from synfer_rt.vocabulary import label_schemes

CLASSES = "neutral,happy,sad"
SETTINGS: dict[str, Any] = {"classes": CLASSES, "width": 16, "batch": 8, "rate": 5e-3}


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


def figures(out: Path) -> dict[str, Any]:
    return json.loads((out / "evaluation.json").read_text())


@contextmanager
def dying(title: str, count: int, before: int = 0) -> Iterator[Any]:
    """A stage that is interrupted in the middle, as by a signal."""

    def report(done: int) -> None:
        if title in DYING and done > before and 2 * done >= count:
            DYING.remove(title)
            raise KeyboardInterrupt

    yield report


DYING: list[str] = []


def in_small_pieces(patch: pytest.MonkeyPatch) -> None:
    """Few images at once, and few to fit a temperature on."""
    patch.setattr("synfer_rt.judging.temperature.FEWEST", 2)
    patch.setattr("synfer_rt.export.training.frozen._POSITIONS", {"cpu": 8 * 64})
    patch.setattr("synfer_rt.export.training.faces._AT_ONCE", 16)


@pytest.fixture(scope="module")
def whole(
    mini_checkpoint: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The folder of a head that was trained for four epochs at once, and what was said."""
    out, said = tmp_path_factory.mktemp("whole") / "annotator", list[str]()
    with pytest.MonkeyPatch.context() as patch:
        in_small_pieces(patch)
        train_annotator(mini_checkpoint, photos, out=out, epochs=4, remark=said.append, **SETTINGS)
    return out, said


def test_the_loss_falls_and_the_disk_is_named_before_it_is_used(whole) -> None:
    out, said = whole
    losses = [float(line.rpartition(" ")[2]) for line in said if line.startswith("epoch")]
    assert len(losses) == 4 and losses[-1] < 0.8 * losses[0]
    # 8 x 8 positions of 16 channels, and 3 layers of 8 heads' maps of the prompt's tokens.
    (sized,) = (line for line in said if line.startswith("Features"))
    values = np.load(next(out.parent.glob("__annotator__/features-*/view-0/values.npy")))
    assert values.dtype == np.float16
    assert f"({values[0].nbytes / 1e6:.2f} MB a view, 2 views of 42 images)" in sized
    assert said.index(sized) < said.index(next(s for s in said if s.startswith("epoch")))


def test_a_training_that_was_stopped_ends_with_the_same_weights(
    whole, mini_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    """Stopped while it read images, then features, then trained."""
    out, said = tmp_path / "annotator", list[str]()
    DYING[:] = ["reading images", "reading features, view 2 of 2", "training"]
    with pytest.MonkeyPatch.context() as patch:
        in_small_pieces(patch)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                train_annotator(mini_checkpoint, photos, out=out, epochs=4, stage=dying, **SETTINGS)
        assert not out.exists()
        train_annotator(
            mini_checkpoint, photos, out=out, epochs=4, stage=dying, remark=said.append, **SETTINGS
        )
    assert any("going on after" in line for line in said)
    assert weights(out) == weights(whole[0])
    assert figures(out) == figures(whole[0])


def test_more_epochs_go_on_and_other_settings_are_refused(
    mini_checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(**changed: Any) -> list[str]:
        said: list[str] = []
        settings: dict[str, Any] = SETTINGS | {"views": 1, "epochs": 1} | changed
        train_annotator(mini_checkpoint, photos, out=tmp_path / "a", remark=said.append, **settings)
        return said

    train()
    before, read = weights(tmp_path / "a"), FERAnno.read
    seen: list[int] = []
    monkeypatch.setattr(FERAnno, "read", lambda self, x: (seen.append(len(x)), read(self, x))[1])
    assert any("already complete" in line for line in train()) and not seen
    assert any("going on after 1 epoch" in line for line in train(epochs=2))
    assert weights(tmp_path / "a") != before
    assert sum(seen) == 1 + 1 + 1 + 6  # for shapes, then the held-out images: no view again
    for changed in ({"width": 32}, {"classes": "happy,sad,neutral"}):
        with pytest.raises(UserError, match="was begun with"):
            train(epochs=3, **changed)
    with pytest.raises(UserError, match="has done 2 epochs already"):
        train()


def head_of(checkpoint: Path, out: Path) -> tuple[Checkpoint, FERAnno]:
    read = read_checkpoint(checkpoint)
    config = trained_feranno.FERAnnoConfig(**json.loads((out / "config.json").read_text()))
    assert config.model == trained_feranno.model_fingerprint(read)
    annotator = trained_feranno.new_feranno(read, *parts(read), config)
    annotator.head.load_state_dict(load_file(out / "model.safetensors"))
    return read, annotator.eval()


def test_the_held_out_figures_are_those_of_a_recount(
    whole, mini_checkpoint: Path, photos: Path
) -> None:
    """By the weights that were written, on the images that are named."""
    read, annotator = head_of(mini_checkpoint, whole[0])
    lines = [json.loads(line) for line in (whole[0] / "held-out.jsonl").open()]
    items = {item.name: item for item in read_dataset(photos).items}
    images = np.stack([load(items[line["file_name"]], read.image_size) for line in lines])
    pixels = np.rint(255 * images).astype(np.uint8).transpose(0, 2, 3, 1)
    with torch.no_grad():
        found = annotator(encoded(Encoder(read.vae).eval(), as_input(pixels))).numpy()
    names = label_schemes.scheme(CLASSES)
    truth = np.array([names.index(str(items[line["file_name"]].label)) for line in lines])
    wrote = np.array([[line["probabilities"][name] for name in names] for line in lines])
    np.testing.assert_allclose(found, wrote, atol=2e-5)
    said, rest = figures(whole[0]), np.array([not line["fitted"] for line in lines])
    assert len(lines) == said["held_out"] == 6 and rest.sum() == 3
    assert said["accuracy"] == pytest.approx((found.argmax(1) == truth).mean(), abs=1e-4)
    calibration = said["calibration"]
    assert calibration["measured_on"] == 3 and calibration["temperature"] != 1
    assert calibration["ece"] == pytest.approx(
        calibration_error(found[rest], truth[rest]), abs=1e-4
    )


def test_what_is_trained_is_what_the_exporter_reads(
    whole, mini_checkpoint: Path, tmp_path: Path
) -> None:
    import shutil

    directory = Path(shutil.copytree(mini_checkpoint, tmp_path / "mini"))
    shutil.copytree(whole[0], directory / "annotator")
    read = read_checkpoint(directory)
    assert "annotator" in read.additions
    annotator, scheme = trained_feranno.read_feranno(read, *parts(read))
    assert scheme == CLASSES
    _, trained = head_of(mini_checkpoint, whole[0])
    x = torch.randn(3, *read.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(annotator(x), trained(x))


def test_views_are_mirrored_by_turns(
    mini_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_checkpoint(mini_checkpoint)
    config = trained_feranno.FERAnnoConfig("affectnet-8", "a face", 16, "")
    annotator = trained_feranno.new_feranno(read, *parts(read), config).eval()
    encoder, rows = Encoder(read.vae).eval(), np.arange(4)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    monkeypatch.setattr(features, "augmented", lambda images, draws: images)
    monkeypatch.setattr(features, "encoded", lambda encoder, x, draws: encoded(encoder, x))
    flipped = np.ascontiguousarray(images[:, :, ::-1])
    found, mirrored = (
        features.Features(
            tmp_path / name, annotator, encoder, given.__getitem__, rows, 2, 0, 4, silent
        )
        for name, given in (("found", images), ("mirrored", flipped))
    )
    for one, other in zip(found[np.arange(4, 8)][0], mirrored[np.arange(4)][0], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_another_head_is_never_overwritten(
    mini_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "annotator").mkdir()
    (tmp_path / "annotator" / "model.safetensors").write_bytes(b"of somebody")
    with pytest.raises(UserError, match="holds something that this training did not write"):
        train_annotator(mini_checkpoint, photos, out=tmp_path / "annotator", **SETTINGS)
    assert weights(tmp_path / "annotator") == b"of somebody"


def test_a_head_can_begin_from_another(
    whole, mini_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    """A small step away from where it begins; a head of another width is refused."""
    more = {"views": 1, "epochs": 1, "rate": 1e-9, "temperature": False}
    settings: dict[str, Any] = SETTINGS | more
    start = whole[0]
    train_annotator(mini_checkpoint, photos, out=tmp_path / "a", start=start, **settings)
    for name, tensor in load_file(tmp_path / "a" / "model.safetensors").items():
        if "norms" not in name:  # these follow the images
            torch.testing.assert_close(tensor, load_file(start / "model.safetensors")[name])
    settings["width"] = 32
    with pytest.raises(UserError, match=r"`start` .* does not hold a head that fits"):
        train_annotator(mini_checkpoint, photos, out=tmp_path / "b", start=start, **settings)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"width": 30}, "`width` must be a multiple of 4"),
        ({"epochs": 0}, "`epochs` must be at least 1"),
        ({"rate": 0.0}, "`rate` must be above 0"),
        ({"classes": "nonsense"}, "Unknown label scheme"),
        ({"classes": "neutral,-,sad"}, "the place '-', which is no class"),
        ({"held_out": "person"}, "the nearest is persons"),
        ({"split": "train", "held_out": "val"}, "no other can be held out"),
        ({"images": 1}, "Among 1 image, drawn for `images`, is none of"),
        ({"device": "warp"}, "`device='warp'` does not work here"),
        ({"device": "cuda:63"}, "does not work here"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_trained(
    changed: dict, said: str, mini_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        train_annotator(mini_checkpoint, photos, out=tmp_path / "a", **SETTINGS | changed)
    assert said in str(caught.value)
    assert not (tmp_path / "a").exists() and not list(tmp_path.rglob("*.safetensors"))


def test_a_bundle_is_not_taken_for_its_checkpoint(photos: Path, tmp_path: Path) -> None:
    from synfer_rt.engines import default_bundle

    with pytest.raises(UserError, match="is a bundle; write its checkpoint with `synfer-rt unpack"):
        train_annotator(default_bundle(), photos, out=tmp_path / "a")
