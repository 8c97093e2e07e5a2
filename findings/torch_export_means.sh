#!/usr/bin/env bash
# Two kinds of means that the ONNX exporter of torch 2.13.0 writes wrongly, without an error or a
# warning. x.mean(dim, dtype=torch.float32) of integers: the graph takes the mean of the integers,
# which cuts its fraction off, and converts it afterwards; without a dimension it is right.
# scatter_reduce with "mean": the graph keeps the last value of each group. It hurts models that
# average indicators, as of visible landmarks, or features by region or segment.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
PIP_COMPILE=0 env/bin/pip install --quiet torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy
env/bin/python - 2>/dev/null <<'PYTHON'
import sys

import onnxruntime
import torch

print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")


class Model(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


def exported(function, *given):
    program = torch.onnx.export(Model(function).eval(), given, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    return session.run(None, {name: x.numpy() for name, x in zip(names, given)})[0].tolist()


visible = torch.tensor([[1, 1, 0, 1], [3, 0, 0, 2]])
groups = torch.tensor([0, 0, 1, 1, 1])
values = torch.tensor([1.0, 3.0, 2.0, 4.0, 9.0])
zeros = torch.zeros(2)
cases = {
    "mean(1, dtype=float32) of integers": (
        lambda x: x.mean(1, dtype=torch.float32), (visible,), [0.75, 1.25], [0.0, 1.0],
    ),
    "mean(dtype=float32) of integers": (
        lambda x: x.mean(dtype=torch.float32), (visible,), 1.0, 1.0,
    ),
    "scatter_reduce(mean)": (
        lambda x, i: zeros.scatter_reduce(0, i, x, "mean", include_self=False),
        (values, groups), [2.0, 5.0], [3.0, 9.0],
    ),
    "scatter_reduce(sum)": (
        lambda x, i: zeros.scatter_reduce(0, i, x, "sum"), (values, groups), [4.0, 15.0], [4.0, 15.0],
    ),
}  # fmt: skip
seen = True
for name, (function, given, right, written) in cases.items():
    torchs, onnxs = function(*given).tolist(), exported(function, *given)
    print(f"{name}: torch {torchs}, exported {onnxs}")
    seen = seen and torchs == right and onnxs == written
sys.exit(0 if seen else "The exporter writes otherwise now: update this finding.")
PYTHON
