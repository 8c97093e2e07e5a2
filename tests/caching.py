"""A tiny bundle with engines that cache features: what text, AUs and time add to its UNet.

So a step that reuses features is the denoiser's step at the time of the step that stored them.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import numpy_helper

from synfer_rt.bundle import Bundle
from tests import tiny_bundle as tiny

_DEEP = """
  angle = Mul (timestep, frequencies)
  sine = Sin (angle)
  cosine = Cos (angle)
  time = Concat <axis = 0> (sine, cosine)
  said = MatMul (text, text_weight)
  told = Add (said, au_bias)
  known = Add (told, time)
  bias_shape = Constant <value_ints = [-1, 8, 1, 1]> ()
  bias = Reshape (known, bias_shape)
"""
_OUTPUTS = "float[B,4,8,8] prediction)"
_FEATURES = "float[B,2,8,1,1] features"
_STORED = """
  features_shape = Constant <value_ints = [-1, 2, 8, 1, 1]> ()
  features = Reshape (known, features_shape)
"""
_REUSED = """
  bias_shape = Constant <value_ints = [-1, 8, 1, 1]> ()
  bias = Reshape (features, bias_shape)
"""


def with_caching(bundle: Bundle, directory: Path) -> Bundle:
    """A copy of a tiny bundle of one size with denoiser.storing and denoiser.reusing."""
    model = onnx.load(bundle.path / bundle.engines["denoiser"].file)
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    shallow = {name: weights[name] for name in ("conv_in", "conv_out")}
    text = tiny._DENOISER
    assert _DEEP in text and _OUTPUTS in text
    storing = text.replace(_OUTPUTS, f"{_OUTPUTS[:-1]}, {_FEATURES})")
    reusing = text.replace("(float[B,4,8,8] latents", f"({_FEATURES}, float[B,4,8,8] latents")
    reusing = reusing.replace(", float[B,2,8] text, float[B,2,8] au_bias", "")
    graphs = {
        "denoiser.storing": (storing.replace(_DEEP, _DEEP + _STORED), weights),
        "denoiser.reusing": (reusing.replace(_DEEP, _REUSED), shallow),
    }
    return tiny.add_engines(bundle, directory, graphs)
