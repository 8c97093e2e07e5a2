"""Low-rank adaptations (Hu et al., arXiv 2106.09685), merged into a checkpoint's weights.

changes.py reads the changes, low_rank.py computes the weights. A file is refused before any weight
is changed, and nothing depends on a random generator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synfer_rt.errors import UserError
from synfer_rt.export.files.lora.changes import OTHER_MODEL, Change, read_changes
from synfer_rt.export.files.lora.low_rank import has_change, merged
from synfer_rt.export.files.tensor_files import (
    PEFT_SETTINGS_FILE,
    read_header_settings,
    read_tensors,
)
from synfer_rt.export.sentences import first_line
from synfer_rt.paths import local


@dataclass(frozen=True)
class Lora:
    """A LoRA file, and the scale by which its changes are multiplied."""

    path: Path
    scale: float = 1.0

    @property
    def files(self) -> tuple[Path, ...]:
        """The LoRA's file, and PEFT's settings beside it, if any."""
        settings = self.path.parent / PEFT_SETTINGS_FILE
        return (self.path, settings) if settings.is_file() else (self.path,)


def parse_lora(given: str | Path) -> Lora:
    """Read a path, or a text `FILE:SCALE`; UserError for a scale that is not a finite number."""
    text = str(given)
    local(text)
    file, colon, scale = text.rpartition(":")
    if not colon or isinstance(given, Path) or Path(text).exists():
        return Lora(Path(text))
    try:
        value = float(scale)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"The scale of the LoRA {text!r} must be a finite number; write FILE or FILE:0.8."
        )
    return Lora(Path(file), value)


def merge_lora(lora: Lora, unet: Any, text_encoder: Any) -> None:
    """Merge a file with the names of diffusers, PEFT, kohya or ComfyUI into both models, in place.

    Raises UserError for a file that is missing, is not a LoRA, or has changes of layers that the
    models do not have; the models are then unchanged.
    """
    if lora.path.is_dir():
        raise UserError(f"{lora.path} is a directory; give the LoRA's file in it as `lora`.")
    if not lora.path.is_file():
        raise UserError(f"There is no LoRA {lora.path}; give its file as `lora`.")
    tensors, header = read_tensors(lora.path, "LoRA"), read_header_settings(lora.path)
    merge_tensors(tensors, unet, text_encoder, lora.scale, lora.path, header)


def merge_tensors(
    tensors: Mapping[str, Tensor],
    unet: Any,
    text_encoder: Any,
    scale: float,
    path: Path,
    header: Mapping[str, Any] | None = None,
) -> None:
    """Merge LoRA `tensors`, which came from `path`, as merge_lora does.

    `header` is what read_header_settings finds in the file.
    """
    models = {"unet": unet, "text_encoder": text_encoder}
    changes = read_changes(tensors, path, header or {}, unet, text_encoder)
    layers = [models[change.layer.part].get_submodule(change.layer.name) for change in changes]
    for layer, change in zip(layers, changes, strict=True):
        _check_fit(path, layer, change, scale)
    with torch.no_grad():
        for layer, change in zip(layers, changes, strict=True):
            own = dict(layer.named_parameters(recurse=False))
            for name, value in _changed(own, change, scale).items():
                own[name].copy_(value)


def _changed(own: Mapping[str, Tensor], change: Change, scale: float) -> dict[str, Tensor]:
    """The new values of the parameters that `change` changes, from the layer's `own`."""
    parts = change.parts
    new = {name: parts[name].to(own[name].dtype) for name in ("weight", "bias") if name in parts}
    if has_change(parts):
        new["weight"] = merged(new.get("weight", own["weight"]), parts, change.factor, scale)
    for name, factor in (("bias_up", change.factor), ("bias_diff", 1.0)):
        if name in parts:
            before = new.get("bias", own["bias"])
            after = before.double() + scale * factor * parts[name].double().flatten()
            new["bias"] = after.to(before.dtype)
    return new


def _check_fit(path: Path, layer: nn.Module, change: Change, scale: float) -> None:
    """Raise UserError unless `change` fits `layer`; only shapes are computed."""
    own = {name: p.to("meta") for name, p in layer.named_parameters(recurse=False)}
    parts = {name: tensor.to("meta") for name, tensor in change.parts.items()}
    if scale != 1 and parts.keys() & own.keys():
        raise UserError(
            f"The LoRA {path} holds {change.layer.name} whole (PEFT's modules_to_save or bias), "
            "which cannot be scaled; give it without a scale."
        )
    if "bias" not in own and any(name.startswith("bias") for name in parts):
        raise UserError(
            f"The LoRA {path} changes the bias of {change.layer.name}, which has none in this "
            f"checkpoint; {OTHER_MODEL}."
        )
    try:
        new = _changed(own, replace(change, parts=parts), scale)
    except (ValueError, RuntimeError, IndexError) as error:
        raise _misfit(path, change, first_line(error)) from error
    for name, tensor in new.items():
        if tensor.shape != own[name].shape:
            found, wanted = list(tensor.shape), list(own[name].shape)
            raise _misfit(path, change, f"a {name} {found} for one of {wanted}")


def _misfit(path: Path, change: Change, reason: str) -> UserError:
    return UserError(
        f"The LoRA {path} does not fit this checkpoint: its change of {change.layer.name} has "
        f"other sizes ({reason}); {OTHER_MODEL}."
    )
