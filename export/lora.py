"""Low-rank adaptations (Hu et al., arXiv 2106.09685), merged into a checkpoint's weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from diffusers.loaders import StableDiffusionLoraLoaderMixin
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor

from synfer_rt.errors import UserError

from .adapter import read_tensors
from .sentences import first_line, some
from .settings import read_json

_MATRIX = re.compile(
    r"(?P<layer>.+?)(?:[._]lora|\.lora_linear_layer)[._](?:(?P<down>A|down)|B|up)\.weight"
)
_EXTRA = re.compile(r"lora_(?:unet|te)\w*\.alpha|.+\.lora_magnitude_vector(?:\.weight)?")
_PEFT = "base_model.model."
_NAME = "merged"
_ERRORS = (ValueError, RuntimeError, TypeError, KeyError, AttributeError, IndexError)


@dataclass(frozen=True)
class Lora:
    """A LoRA file and the factor by which its change of the weights is multiplied."""

    path: Path
    scale: float = 1.0


def parse_lora(text: str) -> Lora:
    """Read `FILE` or `FILE:SCALE`; UserError for a scale that is no finite number."""
    file, colon, scale = text.rpartition(":")
    if not colon or Path(text).exists():
        return Lora(Path(text))
    try:
        value = float(scale)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"The LoRA {text!r} ends in no scale; write it as FILE or FILE:0.8.")
    return Lora(Path(file), value)


def merge_lora(lora: Lora, unet: Any, text_encoder: Any) -> None:
    """Merge a file in the format of diffusers, PEFT or kohya into both models, in place.

    Raises UserError when the file is missing, is no LoRA, or holds a pair of matrices that finds
    no layer to change.
    """
    if not lora.path.is_file():
        raise UserError(f"There is no LoRA {lora.path}; give its file with --lora.")
    tensors = read_tensors(lora.path, "LoRA")
    merge_tensors(tensors, unet, text_encoder, lora.scale, lora.path, _header(lora.path))


def merge_tensors(
    tensors: Mapping[str, Tensor],
    unet: Any,
    text_encoder: Any,
    scale: float,
    path: Path,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Merge LoRA `tensors`, which came from `path`, as merge_lora does.

    `metadata` are PEFT's settings (ranks and alphas), their names prefixed like the tensors'; what
    PEFT itself has saved has them in adapter_config.json beside `path`, or in it.
    """
    # The product of the matrices is taken in the type that they have.
    exact = {name.removeprefix("module."): tensor.float() for name, tensor in tensors.items()}
    if any(name.startswith(_PEFT) for name in exact):
        exact = {name.removeprefix(_PEFT): tensor for name, tensor in exact.items()}
        metadata = _adapter_config(path)
    if not any(name.startswith(("unet.", "text_encoder.", "lora_")) for name in exact):
        part = "text_encoder" if any("encoder.layers." in name for name in exact) else "unet"
        exact = {f"{part}.{name}": tensor for name, tensor in exact.items()}
        metadata = metadata and {f"{part}.{name}": value for name, value in metadata.items()}
    loader = _Models(unet, text_encoder)
    try:
        exact = exact if metadata else _with_alphas(exact)
        _check_names(path, exact)
        state, alphas = loader.lora_state_dict(exact, unet_config=unet.config)[:2]
    except _ERRORS as error:
        raise _misfit(path, error) from error
    wanted = [name for name in state if (found := _MATRIX.fullmatch(name)) and found["down"]]

    def options(part: str) -> dict[str, Any]:
        own = {k: v for k, v in (metadata or {}).items() if k.startswith(f"{part}.")}
        return {"network_alphas": alphas, "metadata": own or None, "adapter_name": _NAME}

    reason = ""
    try:
        loader.load_lora_into_unet(state, unet=unet, **options("unet"))
        loader.load_lora_into_text_encoder(
            state, text_encoder=text_encoder, **options("text_encoder")
        )
        changed = loader.changed()
        if changed == len(wanted):
            loader.fuse_lora(["unet", "text_encoder"], lora_scale=scale)
    except _ERRORS as error:
        if changed := loader.changed():
            raise _misfit(path, error) from error
        reason = f" ({shorten(first_line(error), 200, placeholder='…')})"
    finally:
        loader.unload_lora_weights()
    if changed < len(wanted):
        found = f"only {changed}" if changed else "none"
        raise UserError(
            f"Of the {len(wanted)} layers that the LoRA {path} changes, such as "
            f"{some(wanted, 2)}, this checkpoint has {found}{reason}; give one that was trained on "
            "the same kind of Stable Diffusion."
        )


def _with_alphas(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each `<layer>.alpha` beside `<layer>.lora_A` and `lora_B`, multiplied into lora_B."""
    merged = dict(tensors)
    for name in tensors:
        layer, _, end = name.rpartition(".")
        down, up = (f"{layer}.lora_{kind}.weight" for kind in "AB")
        if end == "alpha" and {down, up} <= {*tensors}:
            merged[up] = merged[up] * (merged.pop(name) / len(merged[down]))
    return merged


def _check_names(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """UserError unless `tensors` are pairs of matrices, with nothing that would be left out."""
    halves: dict[bool, set[str]] = {True: set(), False: set()}
    others = []
    for name in tensors:
        if found := _MATRIX.fullmatch(name):
            halves[found["down"] is not None].add(found["layer"])
        elif not _EXTRA.fullmatch(name):
            others.append(name)
    if others or not any(halves.values()):
        raise UserError(
            f"{path} is no LoRA that can be merged: it holds {some(others or tensors, 2)}; "
            "expected are pairs like unet.….to_q.lora_A.weight and lora_B.weight (DoRA with PEFT's "
            "lora_magnitude_vector), or lora_unet_….lora_down.weight and lora_up.weight; give a "
            "LoRA in the format of diffusers, PEFT or kohya."
        )
    if single := halves[True] ^ halves[False]:
        raise UserError(
            f"The LoRA {path} has one matrix of the two of {some(single, 2)}; fetch it again."
        )


def _misfit(path: Path, error: Exception) -> UserError:
    return UserError(
        f"The LoRA {path} does not fit this checkpoint ({first_line(error)}); give one that was "
        "trained on the same kind of Stable Diffusion."
    )


class _Models(StableDiffusionLoraLoaderMixin):
    """The models that a LoRA may change, as diffusers' loader wants them."""

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        self.unet, self.text_encoder = unet, text_encoder

    def changed(self) -> int:
        """How many layers have a LoRA of theirs at the moment."""
        parts = [*self.unet.modules(), *self.text_encoder.modules()]
        return sum(isinstance(part, BaseTunerLayer) for part in parts)


def _header(path: Path) -> dict[str, Any] | None:
    """PEFT's settings as diffusers writes them into a file."""
    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "null"))
    except (SafetensorError, ValueError):
        return None
    return settings if isinstance(settings, dict) else None


def _adapter_config(path: Path) -> dict[str, Any]:
    """PEFT's settings as it writes them beside a file, or into a directory."""
    folder = path if path.is_dir() else path.parent
    file = folder / "adapter_config.json"
    read_json(file, f"PEFT writes it beside {path.name}, with the alphas; put it there")
    try:
        return LoraConfig.from_pretrained(str(folder)).to_dict()
    except _ERRORS as error:
        raise UserError(
            f"{file} holds no settings of a LoRA ({first_line(error)}); fetch it again."
        ) from error
