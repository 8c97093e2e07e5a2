"""Guiding classifiers: PyTorch networks whose gradient becomes part of an engine.

A checkpoint holds them as folders of safetensors and JSON:

    latent_classifier/    an ExpressionNet on scaled latents: forms "text-latent" and "latent"
    image_classifier/     an ExpressionNet on images, or any image classifier that transformers
                          saved (config.json, model.safetensors, preprocessor_config.json): "text"

An ONNX file guides too (guiding_onnx.py). A classifier that guides should not label.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from synfer_rt.errors import UserError
from synfer_rt.export.files.model_folder import quiet
from synfer_rt.export.networks.image_processor import Preparation, read_preparation
from synfer_rt.export.networks.modules import free_batch
from synfer_rt.export.sentences import first_line, some
from synfer_rt.vocabulary import expressions, label_schemes

LATENT_FOLDER, IMAGE_FOLDER = "latent_classifier", "image_classifier"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_MODEL_TYPE = "synfer-expression-net"


@dataclass(frozen=True)
class NetConfig:
    """The shape of an ExpressionNet: input [channels, size, size], stages of `widths`, classes."""

    channels: int
    size: int
    patch: int
    widths: tuple[int, ...]
    label_scheme: str


class _Residual(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, out, 3, stride, 1)
        self.second = nn.Conv2d(out, out, 3, 1, 1)
        self.shortcut = nn.Conv2d(width, out, stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(F.silu(self.first(F.silu(self.norm(x)))))


class ExpressionNet(nn.Module):
    """A small residual network [B, channels, size, size] -> logits [B, classes].

    It is smooth (SiLU, group normalisation, no max pooling) for the sake of its gradient. The first
    convolution has stride `patch`; every stage after the first halves the size.
    """

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        widths, patch = config.widths, config.patch
        self.stem = nn.Conv2d(config.channels, widths[0], patch + 2, patch, 1)
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.stages = nn.Sequential(
            *(_Residual(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(pairs))
        )
        self.norm = nn.GroupNorm(8, widths[-1])
        left = config.size // patch // 2 ** (len(widths) - 1)
        classes = len(label_schemes.scheme(config.label_scheme))
        self.head = nn.Linear(widths[-1] * left * left, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(F.silu(self.norm(self.stages(self.stem(x)))).flatten(1))

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"model_type": _MODEL_TYPE, **asdict(self.config)}
        (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, folder / _WEIGHTS)


class ExpressionLoss(nn.Module):
    """Cross-entropy of a classifier with a wanted distribution, summed over the batch.

    forward(x, target [B, classes of `scheme`]) -> scalar. `names` are the classifier's classes in
    their order; the loss is over those that are also in `scheme`. For a target among the other
    classes the gradient is zero.
    """

    logits: Tensor
    wanted: Tensor

    def __init__(self, classifier: nn.Module, names: tuple[str, ...], scheme: str) -> None:
        super().__init__()
        self.classifier = classifier
        classes = label_schemes.scheme(scheme)
        shared = [name for name in names if name in classes]
        # Classes are selected by multiplication, since the gradient of indexing is a scatter.
        self.register_buffer("logits", torch.eye(len(names))[:, [names.index(n) for n in shared]])
        self.register_buffer(
            "wanted", torch.eye(len(classes))[:, [classes.index(n) for n in shared]]
        )

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """The summed loss."""
        scores = (self.classifier(x) @ self.logits).log_softmax(-1)
        return -((target @ self.wanted) * scores).sum()


class Decoded(nn.Module):
    """A classifier of images [B, 3, H, W] in [-1, 1], applied to scaled latents [B, C, h, w].

    The images are not clamped: a saturated pixel would have no gradient.
    """

    def __init__(self, vae: Any, classifier: nn.Module) -> None:
        super().__init__()
        free_batch(vae)
        self.vae = vae
        self.classifier = classifier
        self.scale = vae.config.scaling_factor
        self.shift = vae.config.shift_factor or 0.0

    def forward(self, latents: Tensor) -> Tensor:
        """Logits."""
        latents = latents / self.scale + self.shift
        return self.classifier(self.vae.decode(latents, return_dict=False)[0])


class _Transformers(nn.Module):
    """An image classifier of transformers, with its preparation of images in front."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, preparation: Preparation) -> None:
        super().__init__()
        self.model = model
        self.preparation = preparation
        self.register_buffer("mean", torch.tensor(preparation.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preparation.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        matrices = self.preparation.matrices((height, width))
        rows, columns = (torch.from_numpy(matrix).to(images.dtype) for matrix in matrices)
        images = rows @ (images / 2 + 0.5) @ columns.T
        return self.model(pixel_values=(images - self.mean) / self.std).logits


def read_guiding(folder: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """The classifier in `folder`, frozen, and its class names in their order.

    An image classifier takes images in [-1, 1]. Raises UserError for files that are missing,
    unreadable or not a classifier of expressions.
    """
    try:
        fields = dict(json.loads((folder / _CONFIG).read_bytes()))
        if fields.get("model_type") != _MODEL_TYPE:
            network, names = _read_transformers(folder)
        else:
            config = NetConfig(
                int(fields["channels"]),
                int(fields["size"]),
                int(fields["patch"]),
                tuple(map(int, fields["widths"])),
                fields["label_scheme"],
            )
            network, names = ExpressionNet(config), label_schemes.scheme(config.label_scheme)
            network.load_state_dict(load_file(folder / _WEIGHTS))
    except UserError:
        raise
    except Exception as error:  # every one of the libraries raises errors of its own
        reason = first_line(error)
        raise UserError(
            f"{folder} does not hold a guiding classifier ({reason}); train it again, or save one "
            "there with transformers' save_pretrained."
        ) from error
    return network.float().eval().requires_grad_(False), names


def _read_transformers(folder: Path) -> tuple[nn.Module, tuple[str, ...]]:
    import transformers

    with quiet():
        model, found = transformers.AutoModelForImageClassification.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation="eager",
            output_loading_info=True,
        )
    if missing := found["missing_keys"]:  # their values would be random
        raise UserError(
            f"{folder / _WEIGHTS} has the missing keys {some(missing, 3)}; save the whole "
            "classifier again."
        )
    words = [model.config.id2label[i] for i in range(model.config.num_labels)]
    try:
        names = tuple(
            expressions.parse_label(word, label_schemes.scheme("affectnet-8")) for word in words
        )
    except UserError as error:
        raise UserError(
            f"The classes in id2label of {folder / _CONFIG} must be expressions: {error}"
        ) from None
    return _Transformers(model, read_preparation(folder)), names
