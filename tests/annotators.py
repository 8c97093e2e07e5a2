"""The tiny bundle with every kind of annotator: two classifiers, FERAnno and an AU reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synfer_rt.bundle import Bundle
from tests import tiny_bundle as tiny

# Input and its shape, outputs and their number, last operator.
_READERS = {
    "classifier.seven": ("images", tiny.IMAGE, "probabilities", 7, "Softmax"),
    "feranno": ("latents", tiny.LATENT, "probabilities", 8, "Softmax"),
    "au-reader": ("images", tiny.IMAGE, "aus", tiny.AUS, "Sigmoid"),
}
_SCHEMES = {"classifier.seven": "affectnet-7", "feranno": "affectnet-8"}


def with_annotators(bundle: Bundle, directory: Path) -> Bundle:
    """A copy of the tiny bundle in `directory` that has these engines too."""
    graphs = {}
    for seed, (name, (entry, size, exit, count, last)) in enumerate(_READERS.items()):
        shape = size if len(size) == 3 else (3, *size)
        features = shape[0] * (shape[1] // 4) * (shape[2] // 4)
        weight = np.random.default_rng(seed).standard_normal((features, count)).astype("f4")
        text = f"""
        reader (float[B,{",".join(map(str, shape))}] {entry}) => (float[B,{count}] {exit}) {{
          small = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> ({entry})
          features = Flatten (small)
          scores = Gemm (features, weight)
          {exit} = {last} (scores)
        }}"""
        graphs[name] = text, {"weight": weight}
    return tiny.add_engines(bundle, directory, graphs, _SCHEMES)
