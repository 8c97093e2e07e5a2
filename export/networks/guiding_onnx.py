"""Any ONNX classifier of expressions as a guide: its gradient is autograd's of the lifted graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synfer_rt.bundle.sizes import Size
from synfer_rt.errors import UserError
from synfer_rt.export.lifting.network import OnnxNetwork
from synfer_rt.export.networks.classifier import ClassifierSource
from synfer_rt.export.networks.image_network import SCORES, compose_network, reference_scores

_LEAST = 1e-9
"""A smaller probability has no logarithm worth following."""
_TRIED = 3
_TOLERANCE = 1e-3
"""Of scores in ONNX Runtime and here, relative to the largest: both round, and in other places."""


class GuidingOnnx(nn.Module):
    """The classifier `source` for images of `size`.

    forward(images [B, 3, H, W] in [-1, 1]) -> logits [B, K], of all scores of its label scheme.
    Resizing and normalisation are those of a classifier that labels (networks/image_network.py).
    Raises UserError for a file that cannot be used, for operators without a derivative, and if its
    scores of a few images are not those of ONNX Runtime.
    """

    def __init__(self, source: ClassifierSource, size: Size) -> None:
        super().__init__()
        self.network = OnnxNetwork(compose_network(source, size), SCORES, str(source.path))
        self.gives_probabilities = source.output == "probabilities"
        self._compare(source, size)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        scores = self.network(images / 2 + 0.5)
        return torch.log(scores + _LEAST) if self.gives_probabilities else scores

    def _compare(self, source: ClassifierSource, size: Size) -> None:
        images = torch.rand(_TRIED, 3, *size, generator=torch.Generator().manual_seed(0))
        (wanted,) = reference_scores(source, images)
        with torch.no_grad():
            found = self.network(images)
        error = float((found - wanted).abs().max() / wanted.abs().max().clamp_min(_LEAST))
        if not error <= _TOLERANCE:
            raise UserError(
                f"{source.path} gives other scores where it can be differentiated than in ONNX "
                f"Runtime, by {error:.2g} of the largest; export the network with other layers or "
                "another opset, and report the file."
            )
