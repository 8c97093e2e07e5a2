"""Guiding classifiers: PyTorch networks whose gradient becomes part of an engine.

A checkpoint holds them as folders of safetensors and JSON:

    latent_classifier/    an ExpressionNet on scaled latents: forms "text-latent" and "latent"
    image_classifier/     an ExpressionNet on images, or any image classifier that transformers
                          saved (config.json, model.safetensors, preprocessor_config.json): "text"

An ONNX file guides too (guiding_onnx.py). A classifier that guides should not label.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
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
_NO_SHARE = -1e4
"""The logarithm of a share of nothing, finite for the sake of the gradient."""


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
    their order. The loss is over those that are also in `scheme`, or that `mapping` maps to some of
    its classes. For a target among the other classes the gradient is zero.
    """

    logits: Tensor
    wanted: Tensor
    shares: Tensor

    def __init__(
        self,
        classifier: nn.Module,
        names: tuple[str, ...],
        scheme: str,
        mapping: label_schemes.Mapped = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.classifier = classifier
        classes = label_schemes.scheme(scheme)
        parts = [
            {to: weight for to, weight in mapping.get(name, {name: 1.0}).items() if to in classes}
            for name in names
        ]
        used = [i for i, part in enumerate(parts) if part]
        reached = list(dict.fromkeys(to for part in parts for to in part))
        # Classes are selected by multiplication, since the gradient of indexing is a scatter.
        self.register_buffer("logits", torch.eye(len(names))[:, used])
        self.register_buffer(
            "wanted", torch.eye(len(classes))[:, [classes.index(n) for n in reached]]
        )
        self.is_mapped = any(names[i] in mapping for i in used)
        if self.is_mapped:
            weights = torch.tensor([[parts[i].get(to, 0.0) for to in reached] for i in used])
            self.register_buffer("shares", weights.log().clamp_min(_NO_SHARE))

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """The summed loss."""
        scores = self.classifier(x) @ self.logits
        if self.is_mapped:  # the logarithm of the sum of the probabilities' shares
            scores = torch.logsumexp(scores.unsqueeze(-1) + self.shares, 1)
        return -((target @ self.wanted) * scores.log_softmax(-1)).sum()


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


def class_remarks(
    place: object, source: str, scheme: str, mapping: label_schemes.Mapped = MappingProxyType({})
) -> Iterator[str]:
    """Sentences on the classes that the guide in `place`, of the scheme `source`, does not share
    with the model, of `scheme`.

    Raises UserError if it can pull towards none, since it shares fewer than two.
    """
    reached = label_schemes.reached(source, scheme, mapping)
    if len(reached) < 2:
        raise UserError(
            f"{place} tells {source} apart and the model {scheme}, which have "
            f"{reached[0] if reached else 'nothing'} in common, so it cannot guide; give a guide "
            "that knows two or more of the model's classes, or a scheme file whose `mappings` say "
            "what its classes are there."
        )
    if lost := label_schemes.left_out(source, scheme, mapping):
        yield (
            f"The classes {', '.join(lost)} of {place} do not guide: {scheme} lacks them and "
            "nothing maps them to it."
        )
    classes = filter(label_schemes.is_expression, label_schemes.scheme(scheme))
    if lacking := [name for name in classes if name not in reached]:
        yield f"{place} does not know {', '.join(lacking)}; such images are made without its guide."


def classes_of(folder: Path) -> tuple[str, ...]:
    """The names of the classes that the classifier in `folder` tells apart, in their order.

    Raises UserError for a folder without them, and for classes that are not expressions or that are
    there twice.
    """
    try:
        fields = dict(json.loads((folder / _CONFIG).read_bytes()))
        if fields.get("model_type") == _MODEL_TYPE:
            return label_schemes.scheme(fields["label_scheme"])
        given: Mapping[str, str] = fields["id2label"]
        words = [given[str(i)] for i in range(len(given))]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _not_guiding(folder, error) from error
    try:
        known = label_schemes.scheme("affectnet-8")
        names = tuple(expressions.parse_label(word, known) for word in words)
    except UserError as error:
        raise UserError(
            f"The classes in id2label of {folder / _CONFIG} must be expressions: {error}"
        ) from None
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"The classes in id2label of {folder / _CONFIG} contain {twice} twice; give a "
            "classifier of other classes."
        )
    return names


def read_guiding(folder: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """The classifier in `folder`, frozen, and its class names in their order.

    An image classifier takes images in [-1, 1]. Raises UserError for files that are missing,
    unreadable or not a classifier of expressions.
    """
    names = classes_of(folder)
    try:
        fields = dict(json.loads((folder / _CONFIG).read_bytes()))
        if fields.get("model_type") != _MODEL_TYPE:
            network = _read_transformers(folder)
        else:
            config = NetConfig(
                int(fields["channels"]),
                int(fields["size"]),
                int(fields["patch"]),
                tuple(map(int, fields["widths"])),
                fields["label_scheme"],
            )
            network = ExpressionNet(config)
            network.load_state_dict(load_file(folder / _WEIGHTS))
    except UserError:
        raise
    except Exception as error:  # every one of the libraries raises errors of its own
        raise _not_guiding(folder, error) from error
    return network.float().eval().requires_grad_(False), names


def _not_guiding(folder: Path, error: Exception) -> UserError:
    return UserError(
        f"{folder} does not hold a guiding classifier ({first_line(error)}); train it again, or "
        "save one there with transformers' save_pretrained."
    )


def _read_transformers(folder: Path) -> nn.Module:
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
    return _Transformers(model, read_preparation(folder))
