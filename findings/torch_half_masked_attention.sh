#!/usr/bin/env bash
# A module in float16 that calls scaled_dot_product_attention with is_causal=True or a bool mask,
# exported by the TorchScript exporter of torch 2.13.0 (dynamo=False): the mask is written in
# float32, and the exporter casts the scores to it. So the graph computes in float32 from there on
# and returns float32, though PyTorch returns float16 and no warning says so. Without a mask, or with
# one in float16, it stays in float16. LayerNormalization, which the exporter writes from opset 17
# on, is not cast: behind such an attention its input is float32 and its scale float16, and ONNX
# Runtime 1.32.0 refuses the file. At opset 14 the same module runs. It hurts whoever exports CLIP's
# text encoder in float16, whose attention is causal.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 onnx==1.23.2 onnxruntime==1.32.0 numpy
venv/bin/python - <<'PYTHON' 2> /dev/null
import sys
from importlib.metadata import version

import onnx
import onnxruntime
import torch
from torch.nn.functional import scaled_dot_product_attention as attention

print(", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxruntime")))
TOKENS, WIDTH = 8, 16
VISIBLE = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
MASKS = {
    "no mask": {},
    "a float16 mask": {"attn_mask": torch.zeros(TOKENS, TOKENS).masked_fill(~VISIBLE, -6e4).half()},
    "a bool mask": {"attn_mask": VISIBLE},
    "is_causal": {"is_causal": True},
}


class Block(torch.nn.Module):
    """Attention, and a normalisation behind it if wanted."""

    def __init__(self, mask, normalised):
        super().__init__()
        self.mask, self.normalised = mask, normalised
        self.norm = torch.nn.LayerNorm(WIDTH)

    def forward(self, x):
        x = x + attention(x, x, x, **self.mask)
        return self.norm(x) if self.normalised else x


def found(mask, normalised, opset):
    """The type of ONNX Runtime's output, or what it says of the file."""
    torch.manual_seed(0)
    x, module = torch.randn(1, 2, TOKENS, WIDTH).half(), Block(mask, normalised).half().eval()
    assert module(x).dtype == torch.float16
    torch.onnx.export(
        module, (x,), "model.onnx", dynamo=False, opset_version=opset, input_names=["x"]
    )
    onnx.checker.check_model("model.onnx")
    try:
        session = onnxruntime.InferenceSession("model.onnx")
    except Exception as error:
        return "refused" if "bound to different types" in str(error) else str(error)
    return str(session.run(None, {"x": x.numpy()})[0].dtype)


results = {}
for name, mask in MASKS.items():
    cases = {"attention": (False, 17), "with LayerNorm": (True, 17), "at opset 14": (True, 14)}
    results[name] = [found(mask, *case) for case in cases.values()]
    print(f"{name}:", ", ".join(f"{k} {v}" for k, v in zip(cases, results[name])))
right, wrong = ["float16"] * 3, ["float32", "refused"]
sys.exit(
    not (
        results["no mask"] == results["a float16 mask"] == right
        and results["a bool mask"][:2] == results["is_causal"][:2] == wrong
    )
)
PYTHON
