"""A variant: an operator of image classifiers and diffusion graphs in one of its published forms.

Each becomes a small classifier: `x` float [B, 8, 8, 8] are features of an image, the body of the
graph computes `y` from them, and the scores are a projection of the values of `y`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser

CLASSES, PIXELS, CHANNELS, SIZE = 8, 16, 8, 8
_DRAWS = np.random.default_rng(11)
_STEM = _DRAWS.standard_normal((CHANNELS, 3, 3, 3)).astype(np.float32)


def _weight(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


WEIGHTS = {
    "w3": _weight(8, 8, 3, 3),
    "w2": _weight(8, 8, 2, 2),
    "w1": _weight(8, 8, 1, 1),
    "g2": _weight(8, 4, 3, 3),
    "dw": _weight(8, 1, 3, 3),
    "square": _weight(8, 8),
    "wide": _weight(8, 16),
    "bias": _weight(8),
    "scale": 1 + 0.3 * _weight(8, seed=1),
    "variance": 1 + np.abs(_weight(8, seed=2)),
    "slope": _weight(8, 1, 1),
    "last": _weight(8, seed=3),
    "kernel": _weight(1, 32, 8),
    "recurrent": _weight(1, 32, 8, seed=1),
    "gates": _weight(1, 64, seed=2),
    "kernel3": _weight(1, 24, 8),
    "recurrent3": _weight(1, 24, 8, seed=1),
    "gates3": _weight(1, 48, seed=2),
    "integers": np.arange(64, dtype=np.int8).reshape(8, 8) - 30,
    "points": np.random.default_rng(8).uniform(-1.2, 1.2, (1, 5, 5, 2)).astype(np.float32),
    "boxes": np.array([[0, 0, 5, 6], [1.5, 2, 7, 7.5]], np.float32),
}


@dataclass(frozen=True)
class Variant:
    """One operator in one form: the body of a graph that computes `y` from `x`, at an opset."""

    name: str
    opset: int
    body: str

    @property
    def id(self) -> str:
        """Its name in pytest."""
        return f"{self.name}-{self.opset}"

    def network(self) -> onnx.ModelProto:
        """images float [B, 3, 16, 16] -> scores [B, 8], of the variant's opset."""
        probe = self._model("float[B,N] flat", "flat = Flatten (y)", np.zeros(0, np.float32))
        session = onnxruntime.InferenceSession(probe.SerializeToString())
        flat = np.asarray(session.run(None, {"images": images(1)})[0])
        head = _weight(flat.shape[1], CLASSES, seed=4)
        head *= 3 / max(float(np.linalg.norm(flat)), 1e-3)
        return self._model(
            "float[B,8] scores", "flat = Flatten (y) scores = MatMul (flat, head)", head
        )

    def _model(self, output: str, tail: str, head: np.ndarray) -> onnx.ModelProto:
        model = parser.parse_model(
            f'<ir_version: {7 if self.opset < 15 else 10}, opset_import: ["": {self.opset}]>\n'
            f"g (float[B,3,{PIXELS},{PIXELS}] images) => ({output}) {{\n"
            "x = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (images, stem)\n"
            f"{self.body}\n{tail}\n}}"
        )
        text = f"{self.body} {tail}".replace(",", " ").replace("(", " ").replace(")", " ")
        named = {"stem": _STEM, "head": head, **WEIGHTS}
        words = {"stem", *text.split()}
        model.graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in named.items() if name in words
        )
        return model


def images(batch: int) -> np.ndarray:
    """Random pixels float [batch, 3, 16, 16] in [0, 1], which depend on the batch."""
    return np.random.default_rng(batch).random((batch, 3, PIXELS, PIXELS), np.float32)


def ints(name: str, values: list[int]) -> str:
    """A constant of int64 values."""
    return f"{name} = Constant <value = int64[{len(values)}] {{{str(values)[1:-1]}}}> ()\n"


def floats(name: str, values: list[float]) -> str:
    """A constant of float32 values."""
    return f"{name} = Constant <value = float[{len(values)}] {{{str(values)[1:-1]}}}> ()\n"
