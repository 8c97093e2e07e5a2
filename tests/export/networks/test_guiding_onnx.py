"""ONNX classifiers as guides: their engines move images as autograd says of the original."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the build side needs synfer-rt[export]")
import onnx
import torch
from onnx import helper
from PIL import Image
from torch import Tensor, nn

from synfer_rt.errors import UserError
from synfer_rt.export.networks.classifier import ClassifierSource, parse_classifier
from synfer_rt.export.networks.guide import LatentGuide
from synfer_rt.export.networks.guiding_classifier import ExpressionLoss, read_guiding
from synfer_rt.export.networks.guiding_onnx import GuidingOnnx
from synfer_rt.export.networks.resizing import matrix
from synfer_rt.vocabulary import label_schemes
from tests.export.networks.test_transformers_guides import KINDS, assert_moves_as, export, save

SCHEME, SIZE = "affectnet-8", 24
SPEC = f"{SIZE},rgb,mean=0.4/0.5/0.6,std=0.2/0.3/0.4"


class Mobile(nn.Module):
    """What MobileNetV3 and EfficientNet are made of: depthwise convolutions, gates, hard swish."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish())
        self.wide = nn.Sequential(
            *(nn.Conv2d(8, 8, 5, 1, 4, 2, groups=8), nn.BatchNorm2d(8), nn.SiLU())
        )
        self.gate = nn.Sequential(
            nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Hardsigmoid()
        )
        self.head = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        wide = self.wide(x)
        x = x + wide * self.gate(wide.mean((2, 3), keepdim=True))
        return self.head(nn.functional.relu6(x).mean((2, 3)))


class TwoStreams(nn.Module):
    """What POSTER is made of: two streams, and attention of one's features to the other's."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 12, 4, 4), nn.PReLU(12), nn.MaxPool2d(3, 2, 1))
        self.second = nn.Sequential(nn.Conv2d(3, 12, 4, 4), nn.ELU(), nn.AvgPool2d(3, 2, 1))
        self.norm, self.query, self.both = nn.LayerNorm(12), nn.Linear(12, 12), nn.Linear(12, 24)
        self.head = nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        first, second = (s(x).flatten(2).transpose(1, 2) for s in (self.first, self.second))
        key, value = self.both(self.norm(second)).chunk(2, -1)
        weights = torch.einsum("bic,bjc->bij", self.query(self.norm(first)), key).softmax(-1)
        return self.head(torch.cat([first + weights @ value, second], -1).amax(1))


def to_onnx(network: nn.Module, path: Path, size: int = SIZE) -> None:
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    given = (torch.zeros(2, 3, size, size),)
    torch.onnx.export(
        network.eval(), given, path, dynamo=True, dynamic_shapes=shapes, verbose=False
    )


def random_network(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    network = kind().eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network


class Prepared(nn.Module):
    """A network of prepared images, for images [B, 3, H, W] in [-1, 1], resized as Pillow does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = (
            torch.from_numpy(matrix(old, SIZE, Image.Resampling.BILINEAR))
            for old in images.shape[2:]
        )
        images = rows @ (images / 2 + 0.5) @ columns.T
        mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
        return self.network((images - mean[:, None, None]) / std[:, None, None])


def assert_guides_as(original: nn.Module, source: ClassifierSource, path: Path) -> None:
    """The engine of the guide moves images as autograd of the original says."""
    names = label_schemes.scheme(source.label_scheme)
    lifted = GuidingOnnx(source, (16, 16)).eval()
    session = export(LatentGuide(ExpressionLoss(lifted, names, SCHEME)).eval(), path)
    assert_moves_as(ExpressionLoss(original, names, SCHEME), session, 1e-5)


@pytest.mark.parametrize("kind", [Mobile, pytest.param(TwoStreams, marks=pytest.mark.slow)])
def test_its_engine_moves_images_as_autograd_says(kind: type[nn.Module], tmp_path: Path) -> None:
    network = random_network(kind)
    to_onnx(network, tmp_path / "network.onnx")
    source = parse_classifier(tmp_path / "network.onnx", SCHEME, SPEC)
    assert_guides_as(Prepared(network), source, tmp_path / "guide.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_transformers_guides_as_onnx_too(kind: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    read, names = read_guiding(tmp_path)
    original: Any = read

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = original.model

        def forward(self, x: Tensor) -> Tensor:
            return self.model(pixel_values=x).logits

    size = len(original.preparation.matrices((16, 16))[0])
    to_onnx(Logits(), tmp_path / "network.onnx", size)
    mean, std = ("/".join(map(str, v.flatten().tolist())) for v in (original.mean, original.std))
    described = f"{size},rgb,mean={mean},std={std}"
    source = parse_classifier(tmp_path / "network.onnx", ",".join(names), described)
    bilinear = replace(
        original.preparation, size=(size, size), crop=None, resampling=Image.Resampling.BILINEAR
    )
    original.preparation = bilinear
    assert_guides_as(original, source, tmp_path / "guide.onnx")


def test_probabilities_guide_by_their_logarithm(tmp_path: Path) -> None:
    network = random_network(Mobile)
    to_onnx(nn.Sequential(network, nn.Softmax(-1)), tmp_path / "network.onnx")
    source = parse_classifier(tmp_path / "network.onnx", SCHEME, f"{SPEC},probabilities")
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    found = GuidingOnnx(source, (16, 16))(images).log_softmax(-1)
    torch.testing.assert_close(found, Prepared(network)(images).log_softmax(-1), atol=1e-5, rtol=0)


def test_a_network_without_a_derivative_is_refused_by_its_operators(tmp_path: Path) -> None:
    to_onnx(random_network(Mobile), tmp_path / "network.onnx")
    model = onnx.load(tmp_path / "network.onnx")
    last = model.graph.output[0].name
    model.graph.node.append(helper.make_node("Round", [last], ["rounded"]))
    model.graph.output[0].name = "rounded"
    onnx.save(model, tmp_path / "rounded.onnx")
    source = parse_classifier(tmp_path / "rounded.onnx", SCHEME, SPEC)
    with pytest.raises(UserError, match=r"rounded.onnx computes with Round, of which"):
        GuidingOnnx(source, (16, 16))
