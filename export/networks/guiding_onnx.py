"""Any ONNX classifier of expressions as a guide: its gradient is autograd's of the lifted graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synfer_rt.bundle.sizes import Size
from synfer_rt.export.lifting.network import OnnxNetwork
from synfer_rt.export.networks.classifier import ClassifierSource
from synfer_rt.export.networks.image_network import SCORES, compose_network

_LEAST = 1e-9
"""A smaller probability has no logarithm worth following."""


class GuidingOnnx(nn.Module):
    """The classifier `source` for images of `size`.

    forward(images [B, 3, H, W] in [-1, 1]) -> logits [B, K], of all scores of its label scheme.
    Resizing and normalisation are those of a classifier that labels (networks/image_network.py).
    Raises UserError for a file that cannot be used, and for operators without a derivative.
    """

    def __init__(self, source: ClassifierSource, size: Size) -> None:
        super().__init__()
        self.network = OnnxNetwork(compose_network(source, size), SCORES, str(source.path))
        self.gives_probabilities = source.output == "probabilities"

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        scores = self.network(images / 2 + 0.5)
        return torch.log(scores + _LEAST) if self.gives_probabilities else scores
