"""Guides from ONNX files as other tools write them: old opsets, channels last, float16, int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the build side needs synfer-rt[export]")
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper, parser
from torch import Tensor

from synfer_rt.errors import UserError
from synfer_rt.export.lifting import network as lifting
from synfer_rt.export.lifting.mathematics import MATHEMATICS
from synfer_rt.export.networks.classifier import parse_classifier
from synfer_rt.export.networks.guiding_onnx import GuidingOnnx

SCHEME, SIZE = "affectnet-8", 12
WEIGHTS = {
    **{"kernel": (6, 3, 3, 3), "bias": (6,), "scale": (6,), "shift": (6,), "mean": (6,)},
    **{"variance": (6,), "matrix": (6, 8), "last": (8,)},
}
OLD = """
<ir_version: 3, opset_import: ["": %s]>
tools (float[1,12,12,3] image) => (float[1,6] features, float[1,8] scores) {
  first = Transpose<perm=[0,3,1,2]>(image)
  around = Pad<mode="reflect", pads=[0,0,1,1,0,0,1,1]>(first)
  maps = Conv<kernel_shape=[3,3], strides=[2,2]>(around, kernel, bias)
  normal = BatchNormalization<epsilon=0.01>(maps, scale, shift, mean, variance)
  clipped = Clip<min=0.0, max=1.5>(normal)
  kept = Dropout<ratio=0.5>(clipped)
  large = Upsample<mode="nearest", scales=[1.0,1.0,2.0,2.0]>(kept)
  inner = Slice<axes=[2,3], starts=[1,2], ends=[99,-1]>(large)
  left, right = Split<axis=1, split=[2,4]>(inner)
  joined = Concat<axis=1>(right, left)
  pooled = ReduceMean<axes=[2,3], keepdims=0>(joined)
  features = Identity(pooled)
  %s
}
"""
"""What Keras, MXNet and early PyTorch wrote: attributes that became inputs later."""


def weights() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    values = {name: draw.standard_normal(shape).astype("f4") for name, shape in WEIGHTS.items()}
    return {**values, "variance": values["variance"] ** 2 + 0.5}


def save_old(path: Path, opset: int, ending: str) -> Path:
    model = parser.parse_model(OLD % (opset, ending))
    for name, value in weights().items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
        model.graph.input.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
        )
    onnx.save(model, path)
    return path


def logits(images: Tensor) -> Tensor:
    """What `OLD` computes of images [B, 3, 12, 12] in [-1, 1], prepared as pixels up to 255."""
    w = {name: torch.from_numpy(value).to(images) for name, value in weights().items()}
    x = ((images / 2 + 0.5) - 0.5) * 2
    x = F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), w["kernel"], w["bias"], 2)
    x = F.batch_norm(x, w["mean"], w["variance"], w["scale"], w["shift"], eps=0.01)
    x = F.interpolate(x.clamp(0, 1.5), scale_factor=2, mode="nearest")[:, :, 1:, 2:-1]
    x = torch.cat([x[:, 2:], x[:, :2]], 1).mean((2, 3))
    return x @ w["matrix"] + w["last"]


def gradients(network, images: Tensor) -> Tensor:
    given = images.clone().requires_grad_()
    scores = network(given).log_softmax(-1)
    return torch.autograd.grad(scores[:, 1].sum() - scores[:, 5].sum(), given)[0]


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("opset", [7, 8])
def test_a_file_of_an_old_opset_guides_as_its_operators_say(
    tmp_path: Path, opset: int, probabilities: bool
):
    """It is also one for a single image with its channels last, and has a second output."""
    ending = "scores = Gemm(features, matrix, last)"
    if probabilities:
        ending = "said = Gemm(features, matrix, last)  scores = Softmax(said)"
    file = save_old(tmp_path / "old.onnx", opset, ending)
    spec = f"{SIZE},rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5,output=scores"
    spec += ",probabilities" if probabilities else ""
    guide = GuidingOnnx(parse_classifier(file, SCHEME, spec), (SIZE, SIZE))
    images = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    wanted = gradients(logits, images.double())
    torch.testing.assert_close(
        gradients(guide, images).double(), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max())
    )


def save_plain(path: Path, body: str, kind: str = "float") -> Path:
    text = (
        f'<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g ({kind}[N,3,12,12] image) '
        f"=> ({kind}[N,8] scores) {{ {body} }}"
    )
    model = parser.parse_model(text)
    for name, value in weights().items():
        array = value.astype("f2" if kind == "float16" else "f4")
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for name, array in {
        "levels": np.float32(1 / 255),
        "zero": np.uint8(0),
        "small": np.float32(1 / 64),
        "none": np.int8(0),
        "int8": np.clip(weights()["kernel"] * 32, -127, 127).astype(np.int8),
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.save(model, path)
    return path


HEAD = "pooled = GlobalAveragePool(maps)  flat = Flatten(pooled)  scores = Gemm(flat, matrix, last)"
PIXELS = f"{SIZE},rgb,mean=0/0/0,std=0.00392156862745098/0.00392156862745098/0.00392156862745098"


def test_half_precision_and_pixels_up_to_255(tmp_path: Path):
    body = f"bright = Mul(image, kind)  maps = Conv(bright, kernel, bias)  {HEAD}"
    file = save_plain(tmp_path / "half.onnx", body, "float16")
    model = onnx.load(file)
    kind = numpy_helper.from_array(np.array(1 / 255, np.float16), "kind")
    model.graph.initializer.append(kind)
    onnx.save(model, file)
    guide = GuidingOnnx(parse_classifier(file, SCHEME, PIXELS), (SIZE, SIZE))
    images = torch.rand(2, 3, SIZE, SIZE, dtype=torch.float64) * 2 - 1

    def original(given: Tensor) -> Tensor:
        w = {name: torch.from_numpy(v.astype("f2")).to(given) for name, v in weights().items()}
        x = (given / 2 + 0.5) * 255 * float(np.float16(1 / 255))
        x = F.conv2d(x, w["kernel"], w["bias"]).mean((2, 3))
        return x @ w["matrix"] + w["last"]

    wanted = gradients(original, images)
    torch.testing.assert_close(
        gradients(guide, images.float()).double(),
        wanted,
        rtol=0,
        atol=1e-5 * float(wanted.abs().max()),
    )


def test_weights_in_int8_are_read_and_quantized_activations_refused(tmp_path: Path):
    weight = "wide = DequantizeLinear(int8, small, none)"
    spec = f"{SIZE},rgb"
    file = save_plain(tmp_path / "w8.onnx", f"{weight}  maps = Conv(image, wide)  {HEAD}")
    GuidingOnnx(parse_classifier(file, SCHEME, spec), (SIZE, SIZE))
    rounded = "q = QuantizeLinear(image, levels, zero)  x = DequantizeLinear(q, levels, zero)"
    file = save_plain(tmp_path / "w8a8.onnx", f"{weight} {rounded}  maps = Conv(x, wide)  {HEAD}")
    with pytest.raises(
        UserError, match=r"w8a8.onnx computes with DequantizeLinear, QuantizeLinear.*in float"
    ):
        GuidingOnnx(parse_classifier(file, SCHEME, spec), (SIZE, SIZE))


def test_operators_of_a_runtime_are_named(tmp_path: Path):
    body = f"warm = com.microsoft.QuickGelu(image)  maps = Conv(warm, kernel, bias)  {HEAD}"
    file = save_plain(tmp_path / "own.onnx", body)
    with pytest.raises(
        UserError, match=r"own.onnx computes with com.microsoft.QuickGelu, of which"
    ):
        GuidingOnnx(parse_classifier(file, SCHEME, f"{SIZE},rgb"), (SIZE, SIZE))


def test_scores_that_are_not_the_file_s_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = save_plain(tmp_path / "a.onnx", f"x = Softplus(image)  maps = Conv(x, kernel)  {HEAD}")
    source = parse_classifier(file, SCHEME, f"{SIZE},rgb")
    GuidingOnnx(source, (SIZE, SIZE))
    monkeypatch.setitem(lifting.OPERATORS, "Softplus", MATHEMATICS["Relu"])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"a.onnx gives other scores .* than in ONNX Runtime"):
        GuidingOnnx(source, (SIZE, SIZE))


def test_a_softmax_that_is_described_as_logits_is_refused(tmp_path: Path):
    body = "maps = Conv(image, kernel)  " + HEAD.replace("scores = ", "said = ")
    file = save_plain(tmp_path / "soft.onnx", f"{body}  scores = Softmax(said)")
    with pytest.raises(UserError, match=r"soft.onnx is described as giving logits"):
        GuidingOnnx(parse_classifier(file, SCHEME, f"{SIZE},rgb"), (SIZE, SIZE))
