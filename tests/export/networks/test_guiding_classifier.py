"""Classifiers that guide are read from safetensors and JSON, ours and those of transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("transformers", reason="the build side needs synfer-rt[export]")
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file

from synfer_rt.errors import UserError
from synfer_rt.export.networks.guide import LatentGuide
from synfer_rt.export.networks.guiding_classifier import (
    ExpressionLoss,
    ExpressionNet,
    NetConfig,
    class_remarks,
    read_guiding,
)
from synfer_rt.export.onnx.gradient_graph import trace
from synfer_rt.vocabulary import label_schemes

CONFIG = NetConfig(4, 16, 2, (8, 16, 16), "raf-db")
WORDS = ["Angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image classifier as transformers saves it, with its own words for the classes."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=24,
        patch_size=8,
        id2label=dict(enumerate(WORDS)),
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 24, "width": 24},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.3, 0.4],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def changed(source: Path, folder: Path, name: str, **fields: Any) -> None:
    """Copy a classifier with other `fields` in its file `name`."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | fields))


def test_a_saved_network_is_read_back(tmp_path: Path) -> None:
    network = ExpressionNet(CONFIG).eval()
    network.save(tmp_path)
    found, names = read_guiding(tmp_path)
    x = torch.randn(2, 4, 16, 16)
    torch.testing.assert_close(found(x), network(x))
    assert names == label_schemes.scheme("raf-db")
    assert not any(p.requires_grad for p in found.parameters())


def test_an_image_classifier_of_transformers_sees_what_it_was_trained_on(vit: Path) -> None:
    found, names = read_guiding(vit)
    assert names == ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    # Larger than they were, so there is nothing that Pillow would smooth before.
    prepared = F.interpolate(images, (24, 24), mode="bilinear", align_corners=False)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    prepared = (prepared - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    model: Any = transformers.ViTForImageClassification.from_pretrained(vit).eval()
    with torch.no_grad():
        wanted = model(prepared).logits
    torch.testing.assert_close(found(images * 2 - 1), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"do_rescale": False, "do_normalize": False},
        {"image_processor_type": "CLIPImageProcessor", "size": 24, "crop_size": 24},
    ],
)
def test_images_are_prepared_as_by_its_own_processor(
    vit: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    changed(vit, tmp_path, "preprocessor_config.json", **fields)
    image = torch.randint(256, (3, 24, 24), generator=torch.Generator().manual_seed(4))
    processor: Any = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    model: Any = transformers.ViTForImageClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        wanted = model(**processor(image.byte(), return_tensors="pt")).logits
    found = read_guiding(tmp_path)[0](image[None] / 127.5 - 1)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("resampling", range(6))  # as Pillow numbers its filters
@pytest.mark.parametrize("size", [13, 40])
def test_images_are_resized_as_by_its_own_processor(
    vit: Path, tmp_path: Path, resampling: int, size: int
) -> None:
    changed(vit, tmp_path, "preprocessor_config.json", resample=resampling)
    # Far enough from black and white that no filter leaves the range, where Pillow would cut.
    image = np.random.default_rng(5).integers(100, 156, (size, size, 3), np.uint8)
    resized = Image.fromarray(image).resize((24, 24), Image.Resampling(resampling))
    seen: list[torch.Tensor] = []
    found: Any = read_guiding(tmp_path)[0]
    found.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["pixel_values"]), with_kwargs=True
    )
    found(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1)
    shown = 255 * (seen[0] * found.std + found.mean)[0].permute(1, 2, 0)
    assert np.abs(shown.numpy() - np.array(resized)).max() < 2  # Pillow rounds twice


def test_missing_weights_are_refused_not_drawn_at_random(vit: Path, tmp_path: Path) -> None:
    changed(vit, tmp_path, "config.json")
    weights = load_file(tmp_path / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"missing keys classifier\.weight; save the whole"):
        read_guiding(tmp_path)


def test_its_gradient_can_be_traced(vit: Path) -> None:
    classifier, names = read_guiding(vit)
    module = LatentGuide(ExpressionLoss(classifier, names, "affectnet-8")).requires_grad_(False)
    draw = torch.Generator().manual_seed(2)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    image = (2, 3, 16, 16)
    inputs = {
        "latents": random(*image),
        "prediction": random(*image),
        "next_latents": random(*image),
        "next_history": random(2, 3, *image[1:]),
        "coefficients": random(4, 5),
        "clean": torch.tensor([0.8, -0.6]),
        "target": torch.eye(8)[:2],
        "strength": torch.ones(2),
    }
    traced = trace(module, inputs)
    for found, wanted in zip(traced(*inputs.values()), module(*inputs.values()), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    operators = {str(node.target) for node in traced.operators.graph.nodes}
    assert not [name for name in operators if "backward" in name or "layer_norm" in name]


def test_the_loss_is_the_summed_cross_entropy_of_classes_matched_by_name() -> None:
    logits, target = torch.randn(3, 7), torch.eye(8)[[1, 3, 6]]  # happy, surprise, anger
    names = label_schemes.scheme("raf-db")
    found = ExpressionLoss(torch.nn.Identity(), names, "affectnet-8")(logits, target)
    wanted = torch.tensor([names.index(name) for name in ("happy", "surprise", "anger")])
    torch.testing.assert_close(found, F.cross_entropy(logits, wanted, reduction="sum"))


def test_a_class_that_the_classifier_lacks_has_no_gradient() -> None:
    logits = torch.randn(1, 7, requires_grad=True)
    contempt = torch.eye(8)[7:]
    ExpressionLoss(torch.nn.Identity(), label_schemes.scheme("raf-db"), "affectnet-8")(
        logits, contempt
    ).backward()
    assert logits.grad is not None and not logits.grad.any()


def test_mapped_classes_pull_towards_what_they_are_in_the_model_s_scheme() -> None:
    """As the vote maps probabilities (`label_schemes.mapped`); a class by its name counts, too."""
    source, target = "happily surprised,sadly angry,happy,bored", "affectnet-8"
    mapping = {
        "happily surprised": {"happy": 0.25, "surprise": 0.75},
        "sadly angry": {"sad": 0.5, "anger": 0.5},
    }
    names, classes = label_schemes.scheme(source), label_schemes.scheme(target)
    reached = label_schemes.reached(source, target, mapping)
    logits, wanted = torch.randn(4, 4, dtype=torch.float64), ("surprise", "happy", "anger", "sad")
    shares = label_schemes.mapped(logits.softmax(-1).numpy(), source, target, mapping)
    loss = ExpressionLoss(torch.nn.Identity(), names, target, mapping)
    found = loss(logits.float(), torch.eye(8)[[classes.index(name) for name in wanted]])
    rows = [shares[i, reached.index(name)] for i, name in enumerate(wanted)]
    torch.testing.assert_close(found.item(), -float(np.log(rows).sum()), atol=1e-5, rtol=1e-5)


def test_classes_that_guide_and_model_do_not_share_are_named() -> None:
    def said(source: str, mapping: label_schemes.Mapped | None = None) -> str:
        return " ".join(class_remarks("guide.onnx", source, "happy,sad,anger", mapping or {}))

    assert not said("anger,sad,happy")
    assert not said("up,down,anger", {"up": {"happy": 1.0}, "down": {"sad": 1.0}})
    some = said("happy,sad,bored,valence,-")
    assert "classes bored of guide.onnx do not guide" in some
    assert "guide.onnx does not know anger;" in some
    for source, common in (("bored,tired", "nothing"), ("bored,sad", "sad")):
        with pytest.raises(UserError, match=f"which have {common} in common, so it cannot guide"):
            said(source)


def test_a_class_that_is_there_twice_is_refused(vit: Path, tmp_path: Path) -> None:
    words = [*WORDS[:-1], "happiness"]
    changed(vit, tmp_path, "config.json", id2label=dict(enumerate(words)))
    with pytest.raises(UserError, match="contain happy twice"):
        read_guiding(tmp_path)


BROKEN = {
    "other widths": lambda config: config | {"widths": [8, 8, 8]},
    "no widths": lambda config: config | {"widths": []},
    "no patch": lambda config: config | {"patch": 0},
    "no object": lambda config: [],
}


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "words", *BROKEN])
def test_a_damaged_classifier_is_refused(damage: str, tmp_path: Path, vit: Path) -> None:
    ExpressionNet(CONFIG).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    if damage in BROKEN:
        (tmp_path / "config.json").write_text(json.dumps(BROKEN[damage](config)))
    elif damage == "words":
        changed(vit, tmp_path, "config.json", id2label={i: f"LABEL_{i}" for i in range(7)})
    else:
        (tmp_path / damage).write_bytes(b"nothing")
    words = r"id2label of .*config\.json must be expressions: Unknown label"
    reason = words if damage == "words" else "does not hold a guiding classifier"
    with pytest.raises(UserError, match=reason):
        read_guiding(tmp_path)
