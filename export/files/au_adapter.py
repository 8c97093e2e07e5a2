"""AU adapters, told apart by the tensors in their files, not by the names of the files.

Two formats are read, from safetensors or torch files:

- SynFER's (He et al., arXiv 2410.09865), which is IP-Adapter's (Ye et al., arXiv 2308.06721):
  `image_proj` maps an AU vector to tokens of the text encoder's width, by one linear layer, or by
  two with an activation between them, with or without a final LayerNorm; `ip_adapter` holds the key
  and value projections of these tokens for every cross-attention layer, numbered by the index of
  its processor in the UNet's `attn_processors`. IP-Adapter's training code calls the two groups
  `image_proj_model` and `adapter_modules`.
- FineFace's (Varanka et al., arXiv 2407.20175): its one token consists of the AUs themselves, the
  output of the linear layer `au_encoder`, and zeros; `au_to_k` and `au_to_v` are named after the
  processors. Its AUs are intensities from 0 to 5. A directory with the files of a FineFace model is
  one adapter, together with the LoRA among them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten

import torch
from torch import Tensor, nn

from synfer_rt.errors import UserError
from synfer_rt.export.files.au_adapter_files import (
    TRAINED_AS,
    AdapterFiles,
    is_fineface,
    is_lora,
    is_synfer,
    plain_name,
    read_sets,
)
from synfer_rt.export.files.tensor_files import unwrapped
from synfer_rt.export.sentences import some

FINEFACE_MAXIMUM = 5.0
"""The largest intensity of DISFA, on which FineFace is trained."""

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}
"""The activations between the two linear layers of a projection; the first is IP-Adapter's."""


@dataclass(frozen=True)
class CrossAttention:
    """A cross-attention layer of a UNet: its processor's index and name, and its inner width."""

    index: int
    name: str
    width: int


class TokenProjection(nn.Module):
    """AU vectors [..., A] -> tokens [..., T, D]: `layers`, then T rows, then `norm` if any."""

    def __init__(self, layers: nn.Sequential, tokens: int, norm: nn.LayerNorm | None) -> None:
        super().__init__()
        self.layers, self.tokens, self.norm = layers, tokens, norm

    @property
    def units(self) -> int:
        """A, the length of the AU vector."""
        return self._first.in_features

    @property
    def affine(self) -> nn.Linear | None:
        """The projection as one linear layer, if it is no more than that."""
        return None if self.two_layers or self.norm is not None else self._first

    @property
    def two_layers(self) -> bool:
        """Whether there are two linear layers, with an activation between them."""
        return len(self.layers) > 1

    def activate(self, name: str) -> None:
        """Use the activation `name` of ACTIVATIONS between the two layers."""
        self.layers[1] = ACTIVATIONS[name]()

    @property
    def _first(self) -> nn.Linear:
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        return first

    def forward(self, aus: Tensor) -> Tensor:
        """The tokens."""
        tokens = self.layers(aus).unflatten(-1, (self.tokens, -1))
        return tokens if self.norm is None else self.norm(tokens)


@dataclass(frozen=True)
class AUAdapter:
    """AU tokens and their key and value projections, [width, D] by the index of a processor.

    `maximum` is the AU intensity that a request's 1.0 stands for; `vocabulary` is the AU vocabulary
    that the format implies, if any; `lora` are LoRA weights from the adapter's files.
    """

    projection: TokenProjection
    to_k: dict[int, Tensor]
    to_v: dict[int, Tensor]
    maximum: float = 1.0
    vocabulary: str | None = None
    lora: dict[str, Tensor] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    @property
    def units(self) -> int:
        """A, the length of the AU vector."""
        return self.projection.units

    @property
    def tokens(self) -> int:
        """T, the number of AU tokens."""
        return self.projection.tokens


def read_adapter(path: Path, layers: Sequence[CrossAttention], token_width: int) -> AUAdapter:
    """Read an adapter: a safetensors file, a torch file, or a directory.

    A directory holds the files of one FineFace model, or of several; the one that fits the UNet is
    read. `layers` are all cross-attention layers of the UNet and `token_width` is D. Raises
    UserError for a file that is missing, cut short, of another kind, or does not fit the UNet.
    """
    sets = read_sets(path)
    if len(sets) == 1:
        return _of_one_set(path, sets[0], layers, token_width)
    fitting, named = [], []
    for one in sets:
        reason = "fits"
        try:
            fitting.append(_of_one_set(path, one, layers, token_width))
        except UserError as error:
            reason = shorten(str(error).replace(f"The AU adapter {path} ", ""), 160)
        named.append(f"{', '.join(file.name for file in one.files)} ({reason})")
    if len(fitting) == 1:
        return fitting[0]
    raise UserError(
        f"{path} holds {len(sets)} AU adapters, and {len(fitting) or 'none'} of them fit this "
        f"checkpoint: {'; '.join(named)}; give the file of the adapter that was trained with it, "
        "or a directory with its files."
    )


def _of_one_set(
    path: Path, given: AdapterFiles, layers: Sequence[CrossAttention], width: int
) -> AUAdapter:
    tensors = given.tensors
    heads = {unwrapped(name).partition(".")[0] for name in tensors}
    if "unet" in heads and heads & TRAINED_AS.keys():
        raise UserError(
            f"{path} is a whole training state with a UNet; save its {' and '.join(TRAINED_AS)} "
            "alone, and save the UNet into the checkpoint if it was trained too."
        )
    lora = {name: tensor for name, tensor in tensors.items() if is_lora(name)}
    adapter = {plain_name(name): t.float() for name, t in tensors.items() if name not in lora}
    if any(map(is_synfer, adapter)):
        return _ip_adapter(_Given(path, adapter), layers, width, lora, given.files)
    if any(map(is_fineface, adapter)):
        return _fineface(_Given(path, adapter), layers, width, lora, given.files)
    raise UserError(
        f"{path} is not an AU adapter in a known format: it has the keys {some(tensors)}; expected "
        f"are {some(_ip_names(layers))} (SynFER's format), or au_encoder.weight, au_encoder.bias, "
        f"{some(_fineface_names(layers), 2)} (FineFace's); give the adapter's own file."
    )


@dataclass(frozen=True)
class _Given:
    path: Path
    tensors: Mapping[str, Tensor]

    def require(self, expected: Collection[str]) -> None:
        """Raise UserError unless the keys are exactly those `expected`."""
        missing, more = set(expected) - set(self.tensors), set(self.tensors) - set(expected)
        if missing or more:
            raise UserError(
                f"The AU adapter {self.path} does not fit this UNet: missing keys are "
                f"{some(missing)}, unexpected keys are {some(more)}; found are "
                f"{some(self.tensors)}, expected {some(expected)}; give the adapter that was "
                "trained with this checkpoint."
            )

    def take(self, name: str, *shape: int | None) -> Tensor:
        """The tensor `name`; UserError unless it has `shape`, in which None is any size."""
        tensor = self.tensors[name]
        found = tuple(tensor.shape)
        if len(found) != len(shape) or any(
            wanted not in (None, size) for wanted, size in zip(shape, found, strict=True)
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise UserError(
                f"The AU adapter {self.path} has {name} {list(found)}; this UNet needs "
                f"[{wanted}]; give the adapter that was trained with this checkpoint."
            )
        return tensor

    def linear(self, name: str, out: int | None = None, inner: int | None = None) -> nn.Linear:
        """The linear layer `name` with `out` outputs and `inner` inputs."""
        weight = self.take(f"{name}.weight", out, inner)
        return _linear(weight, self.take(f"{name}.bias", len(weight)))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
    return linear


def _ip_names(layers: Sequence[CrossAttention], proj: Iterable[str] = ("proj",)) -> set[str]:
    names = {f"image_proj.{layer}.{part}" for layer in proj for part in ("weight", "bias")}
    return names | {f"ip_adapter.{at.index}.to_{kind}_ip.weight" for at in layers for kind in "kv"}


def _ip_adapter(
    given: _Given,
    layers: Sequence[CrossAttention],
    width: int,
    lora: dict[str, Tensor],
    files: tuple[Path, ...],
) -> AUAdapter:
    parts = {name.split(".", 1)[1].rpartition(".")[0] for name in given.tensors if "_proj." in name}
    linear = ["proj.0", "proj.2"] if "proj.0" in parts else ["proj"]
    norms = [name for name in ("norm", "proj.3") if name in parts][:1]
    given.require(_ip_names(layers, [*linear, *norms]))
    first, last = (f"image_proj.{name}" for name in (linear[0], linear[-1]))
    rows = len(given.take(f"{last}.weight", None, None))
    if rows == 0 or rows % width:
        raise UserError(
            f"The AU adapter {given.path} has {last}.weight "
            f"{list(given.tensors[f'{last}.weight'].shape)}, but AU tokens for this text encoder "
            f"need a multiple of {width} rows; give an adapter of that width."
        )
    stack: list[nn.Module] = [given.linear(first)]
    if len(linear) > 1:
        hidden = given.tensors[f"{first}.weight"].shape[0]
        stack += [nn.GELU(), given.linear(last, inner=hidden)]
    norm = None
    if norms:
        norm = nn.LayerNorm(width).requires_grad_(False)
        norm.weight.data = given.take(f"image_proj.{norms[0]}.weight", width)
        norm.bias.data = given.take(f"image_proj.{norms[0]}.bias", width)
    keys, values = (
        {
            at.index: given.take(f"ip_adapter.{at.index}.to_{kind}_ip.weight", at.width, width)
            for at in layers
        }
        for kind in "kv"
    )
    projection = TokenProjection(nn.Sequential(*stack), rows // width, norm)
    return AUAdapter(projection, keys, values, lora=lora, files=files)


def _fineface_names(layers: Sequence[CrossAttention]) -> set[str]:
    return {f"{at.name}.au_to_{kind}.weight" for at in layers for kind in "kv"}


def _fineface(
    given: _Given,
    layers: Sequence[CrossAttention],
    width: int,
    lora: dict[str, Tensor],
    files: tuple[Path, ...],
) -> AUAdapter:
    given.require({"au_encoder.weight", "au_encoder.bias", *_fineface_names(layers)})
    weight = given.take("au_encoder.weight", None, None)
    hidden, units = weight.shape
    if units + hidden > width:
        raise UserError(
            f"The AU adapter {given.path} has a token of {units} action units and {hidden} "
            f"numbers, wider than this text encoder's {width}; give the adapter that was trained "
            "with it."
        )
    token, bias = torch.zeros(width, units), torch.zeros(width)
    token[:units], token[units : units + hidden] = torch.eye(units), weight
    bias[units : units + hidden] = given.take("au_encoder.bias", hidden)
    keys, values = (
        {at.index: given.take(f"{at.name}.au_to_{kind}.weight", at.width, width) for at in layers}
        for kind in "kv"
    )
    projection = TokenProjection(nn.Sequential(_linear(token, bias)), 1, None)
    vocabulary = "disfa-12" if units == 12 else None
    return AUAdapter(projection, keys, values, FINEFACE_MAXIMUM, vocabulary, lora, files)
