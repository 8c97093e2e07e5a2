"""The tiny bundle with every kind of annotator: two classifiers, FERAnno and an AU reader."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.interfaces import EngineSpec, TensorSpec

_GRAPHS = {
    "classifier.seven": (
        "images",
        "probabilities",
        (3, 32, 32),
        7,
        "Softmax",
        "affectnet-7",
    ),
    "annotator": ("latents", "probabilities", (4, 8, 8), 8, "Softmax", "affectnet-8"),
    "au-reader": ("images", "aus", (3, 32, 32), 41, "Sigmoid", None),
}


def with_annotators(bundle: Bundle, directory: Path) -> Bundle:
    """A copy of the tiny bundle in `directory` that has these engines too."""
    shutil.copytree(bundle.path, directory)
    engines = dict(bundle.engines)
    for seed, (name, (entry, exit, shape, count, last, scheme)) in enumerate(_GRAPHS.items()):
        _write(directory / f"{name}.onnx", entry, exit, shape, count, last, seed)
        engines[name] = EngineSpec(
            name,
            f"{name}.onnx",
            "fp32",
            21,
            (TensorSpec(entry, "float32", ("B", *shape)),),
            (TensorSpec(exit, "float32", ("B", count)),),
            scheme,
        )
    return replace(open_bundle(directory), engines=engines)


def _write(
    path: Path, entry: str, exit: str, shape: tuple[int, ...], count: int, last: str, seed: int
) -> None:
    size = ",".join(map(str, shape))
    model = parser.parse_model(f"""<ir_version: 10, opset_import: ["": 21]>
    reader (float[B,{size}] {entry}) => (float[B,{count}] {exit}) {{
      small = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> ({entry})
      features = Flatten (small)
      scores = Gemm (features, weight)
      {exit} = {last} (scores)
    }}""")
    features = shape[0] * (shape[1] // 4) * (shape[2] // 4)
    weight = np.random.default_rng(seed).standard_normal((features, count)).astype("f4")
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    onnx.save(model, path)
