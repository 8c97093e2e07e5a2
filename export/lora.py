"""Low-rank adaptations (Hu et al., arXiv 2106.09685), merged into a checkpoint's weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.loaders import StableDiffusionLoraLoaderMixin
from safetensors import SafetensorError, safe_open
from torch import Tensor

from synfer_rt.errors import UserError

from .adapter import read_tensors
from .sentences import first_line, some

_DOWN = (".lora_A.", ".lora.down.", "_lora.down.", ".lora_linear_layer.down.")
_NAME = "merged"


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
    merge_tensors(tensors, unet, text_encoder, lora.scale, lora.path, _metadata(lora.path))


def merge_tensors(
    tensors: Mapping[str, Tensor],
    unet: Any,
    text_encoder: Any,
    scale: float,
    path: Path,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Merge LoRA `tensors`, which came from `path`, as merge_lora does.

    `metadata` are PEFT's settings (ranks and alphas) as diffusers writes them into a file.
    """
    # The product of the matrices is taken in the type that they have.
    exact = {name.removeprefix("module."): tensor.float() for name, tensor in tensors.items()}
    if not any(name.startswith(("unet.", "text_encoder.", "lora_")) for name in exact):
        exact = {f"unet.{name}": tensor for name, tensor in exact.items()}
    loader = _Models(unet, text_encoder)
    with _sentence(path):
        state, alphas = loader.lora_state_dict(exact, unet_config=unet.config)[:2]
    wanted = [name for name in state if any(part in name for part in _DOWN)]
    unrelated = [name for name in state if "lora" not in name]
    if unrelated or not wanted:
        raise UserError(
            f"{path} is no LoRA: found are {some(unrelated or tensors, 4)}; expected are pairs "
            "like unet.….to_q.lora_A.weight and lora_B.weight, or lora_unet_….lora_down.weight; "
            "give a LoRA in the format of diffusers or kohya."
        )
    options = {"network_alphas": alphas, "metadata": metadata, "adapter_name": _NAME}
    try:
        with _sentence(path, when=loader.changed):
            loader.load_lora_into_unet(state, unet=unet, **options)
            loader.load_lora_into_text_encoder(state, text_encoder=text_encoder, **options)
        changed = loader.changed()
        if changed == len(wanted):
            loader.fuse_lora(["unet", "text_encoder"], lora_scale=scale)
    finally:
        loader.unload_lora_weights()
    if changed < len(wanted):
        found = f"only {changed}" if changed else "none"
        raise UserError(
            f"Of the {len(wanted)} layers that the LoRA {path} changes, such as "
            f"{some(wanted, 2)}, this checkpoint has {found}; give one that was trained on the "
            "same kind of Stable Diffusion."
        )


@contextmanager
def _sentence(path: Path, when: Callable[[], int] = lambda: 1) -> Iterator[None]:
    """Turn the loader's errors into a UserError, or drop them when `when()` is 0."""
    try:
        yield
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError, IndexError) as error:
        if not when():
            return
        reason = first_line(error)
        raise UserError(
            f"The LoRA {path} does not fit this checkpoint ({reason}); give one that was trained "
            "on the same kind of Stable Diffusion."
        ) from error


class _Models(StableDiffusionLoraLoaderMixin):
    """The models that a LoRA may change, as diffusers' loader wants them."""

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        self.unet, self.text_encoder = unet, text_encoder

    def changed(self) -> int:
        """How many layers have a LoRA of theirs at the moment."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        parts = [*self.unet.modules(), *self.text_encoder.modules()]
        return sum(isinstance(part, BaseTunerLayer) for part in parts)


def _metadata(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, "pt") as file:
            settings = (file.metadata() or {}).get("lora_adapter_metadata")
        return json.loads(settings) if settings else None
    except (SafetensorError, ValueError):
        return None
