"""The tiny bundle with guides: gradients of its annotator's loss, written out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from synfer_rt.bundle import Bundle
from tests import tiny_bundle as tiny

_GRADIENT = """
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  a = Gather (clean, zero)
  b = Gather (clean, one)
  kept = Mul (a, latents)
  found = Mul (b, prediction)
  x0 = Add (kept, found)
  flat = Flatten (x0)
  logits = MatMul (flat, weight)
  said = Softmax (logits)
  wrong = Sub (said, target)
  back = Transpose (weight)
  flat_gradient = MatMul (wrong, back)
  image_shape = Constant <value_ints = [-1, 4, 8, 8]> ()
"""

_LATENT = f"""
guide (float[B,4,8,8] latents, float[B,4,8,8] prediction, float[B,4,8,8] next_latents,
       float[B,3,4,8,8] next_history, float[4,5] coefficients, float[2] clean,
       float[B,8] target, float[B] strength)
    => (float[B,4,8,8] guided_latents, float[B,3,4,8,8] guided_history) {{
  {_GRADIENT}
  column = Constant <value_ints = [1]> ()
  square = Mul (flat_gradient, flat_gradient)
  mean = ReduceMean (square, column)
  rms = Sqrt (mean)
  unit = Div (flat_gradient, rms)
  length = Unsqueeze (strength, column)
  scaled = Mul (length, unit)
  push = Div (scaled, b)
  against = Neg (push)
  change = Reshape (against, image_shape)
  weights = Gather <axis = 1> (coefficients, one)
  first = Gather (weights, zero)
  moved = Mul (first, change)
  guided_latents = Add (next_latents, moved)
  start = Constant <value_ints = [1]> ()
  end = Constant <value_ints = [4]> ()
  rest = Slice (weights, start, end)
  row_shape = Constant <value_ints = [1, 3, 1, 1, 1]> ()
  rows = Reshape (rest, row_shape)
  changes = Unsqueeze (change, column)
  all_moved = Mul (rows, changes)
  guided_history = Add (next_history, all_moved)
}}
"""

# The tiny denoiser's conditional branch forwards, then backwards from x0 to the text.
_TEXT = f"""
guide (float[B,4,8,8] latents, float timestep, float[2] clean, float[B,8] target,
       float[B] strength, float[B,2,8] text, float[B,2,8] au_bias)
    => (float[B,2,8] guided_text) {{
  left = Constant <value_int = 0> ()
  right = Constant <value_int = 1> ()
  unconditional = Gather <axis = 1> (text, left)
  conditional = Gather <axis = 1> (text, right)
  aus = Gather <axis = 1> (au_bias, right)
  angle = Mul (timestep, frequencies)
  sine = Sin (angle)
  cosine = Cos (angle)
  time = Concat <axis = 0> (sine, cosine)
  words = MatMul (conditional, text_weight)
  told = Add (words, aus)
  known = Add (told, time)
  bias_shape = Constant <value_ints = [-1, 8, 1, 1]> ()
  bias = Reshape (known, bias_shape)
  hidden = Conv <pads = [1, 1, 1, 1]> (latents, conv_in)
  biased = Add (hidden, bias)
  active = Tanh (biased)
  prediction = Conv <pads = [1, 1, 1, 1]> (active, conv_out)
  {_GRADIENT}
  gradient = Reshape (flat_gradient, image_shape)
  of_prediction = Mul (b, gradient)
  of_active = ConvTranspose <pads = [1, 1, 1, 1]> (of_prediction, conv_out)
  activity = Mul (active, active)
  whole = Constant <value_float = 1.0> ()
  slope = Sub (whole, activity)
  of_biased = Mul (of_active, slope)
  area = Constant <value_ints = [2, 3]> ()
  of_bias = ReduceSum <keepdims = 0> (of_biased, area)
  text_back = Transpose (text_weight)
  of_text = MatMul (of_bias, text_back)
  last = Constant <value_ints = [1]> ()
  squares = Mul (of_text, of_text)
  sum = ReduceSum (squares, last)
  norm = Sqrt (sum)
  unit = Div (of_text, norm)
  length = Unsqueeze (strength, last)
  step = Mul (length, unit)
  moved = Sub (conditional, step)
  first = Unsqueeze (unconditional, last)
  second = Unsqueeze (moved, last)
  guided_text = Concat <axis = 1> (first, second)
}}
"""


def with_guides(bundle: Bundle, directory: Path) -> Bundle:
    """A copy of a tiny bundle with annotators that has guide.latent and guide.text-latent too."""
    (small,) = _weights(bundle, "feranno").values()
    # Averaging 4x4 pixels is linear, so that the annotator's logits are one product.
    pooled = small.reshape(4, 2, 2, -1).repeat(4, 1).repeat(4, 2) / 16
    weight = {"weight": pooled.reshape(-1, small.shape[1]).astype("f4")}
    graphs = {
        "guide.latent": (_LATENT, weight),
        "guide.text-latent": (_TEXT, weight | _weights(bundle, "denoiser")),
    }
    return tiny.add_engines(bundle, directory, graphs)


def _weights(bundle: Bundle, engine: str) -> dict[str, np.ndarray]:
    model = onnx.load(bundle.path / bundle.engines[engine].file)
    return {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
