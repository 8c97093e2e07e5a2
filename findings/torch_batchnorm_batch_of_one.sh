#!/usr/bin/env bash
# torch 2.13.0 on the CPU: the gradient of BatchNorm2d in evaluation mode is wrong, without an error,
# for a batch of one image if the gradient that comes in has the strides of transposed tokens, as
# behind `maps.flatten(2).transpose(1, 2)` in networks of convolutions and attention. In a larger
# batch, and after contiguous(), it is right. It hurts whoever needs one image's gradient: saliency
# maps, guidance, adversarial examples, and tests that compare with autograd.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/env"
"$scratch/env/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$scratch/env/bin/python" - <<'PYTHON'
import sys

import torch
from torch import nn

print(f"torch {torch.__version__}")
torch.manual_seed(0)
norm = nn.BatchNorm2d(4).eval().requires_grad_(False)
norm.running_var.uniform_(0.5, 2)
factor = (norm.running_var + norm.eps).rsqrt().view(1, 4, 1, 1)
worst = {}
for batch in (1, 2):
    x = torch.randn(batch, 4, 3, 3, requires_grad=True)
    tokens = torch.randn(batch, 9, 4).transpose(1, 2).reshape(batch, 4, 3, 3)
    for name, gradient in (("of tokens", tokens), ("contiguous", tokens.contiguous())):
        (found,) = torch.autograd.grad(norm(x), x, gradient)
        error = (found - gradient * factor).abs().max().item()
        worst[batch, name] = error
        print(f"batch {batch}, {name}, strides {gradient.stride()}: off by {error:.1e}")
wrong = [key for key, error in worst.items() if error > 1e-3]
sys.exit(0 if wrong == [(1, "of tokens")] else "No longer so; update this finding.")
PYTHON
