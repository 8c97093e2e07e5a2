"""The tiny bundle with engines that denoise from the conditional branch alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from synfer_rt.bundle import Bundle
from tests import tiny_bundle as tiny

_ONE_BRANCH = """
denoiser (float[B,4,8,8] latents, float[B,3,4,8,8] history, float timestep,
          float[4,5] coefficients, float[B,2,8] text, float[B,2,8] au_bias)
    => (float[B,4,8,8] next_latents, float[B,3,4,8,8] next_history, float[B,4,8,8] prediction) {
  one = Constant <value_ints = [1]> ()
  first = Constant <value_int = 0> ()
  second = Constant <value_int = 1> ()
  hidden = Conv <pads = [1, 1, 1, 1]> (latents, conv_in)
  angle = Mul (timestep, frequencies)
  sine = Sin (angle)
  cosine = Cos (angle)
  time = Concat <axis = 0> (sine, cosine)
  words = Gather <axis = 1> (text, second)
  units = Gather <axis = 1> (au_bias, second)
  said = MatMul (words, text_weight)
  told = Add (said, units)
  known = Add (told, time)
  bias_shape = Constant <value_ints = [-1, 8, 1, 1]> ()
  bias = Reshape (known, bias_shape)
  biased = Add (hidden, bias)
  active = Tanh (biased)
  prediction = Conv <pads = [1, 1, 1, 1]> (active, conv_out)

  now = Unsqueeze (latents, one)
  predicted = Unsqueeze (prediction, one)
  stack = Concat <axis = 1> (now, predicted, history)
  flat_shape = Constant <value_ints = [0, 0, -1]> ()
  flat = Reshape (stack, flat_shape)
  stepped = MatMul (coefficients, flat)
  row_shape = Constant <value_ints = [-1, 4, 4, 8, 8]> ()
  rows = Reshape (stepped, row_shape)
  next_latents = Gather <axis = 1> (rows, first)
  end = Constant <value_ints = [4]> ()
  next_history = Slice (rows, one, end, one)
}
"""


def with_branches(bundle: Bundle, directory: Path, *, student: bool = False) -> Bundle:
    """A copy of a tiny bundle with denoiser.conditional and, with `student`, denoiser.distilled.

    The student has other weights than the denoiser.
    """
    model = onnx.load(bundle.path / bundle.engines["denoiser"].file)
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    graphs = {"denoiser.conditional": (_ONE_BRANCH, weights)}
    if student:
        draws = np.random.default_rng(9)
        moved = {n: w + 0.1 * draws.standard_normal(w.shape, "f4") for n, w in weights.items()}
        graphs["denoiser.distilled"] = (_ONE_BRANCH, moved)
    return tiny.add_engines(bundle, directory, graphs)
