"""The changes in a LoRA file: for each layer its matrices, and their factor.

The names of the tensors say which layer (names.py); alphas in the file or PEFT's settings
(peft_settings.py) give the factor. A file is refused if any part of it would be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from synfer_rt.errors import UserError
from synfer_rt.export.files.json_files import read_json
from synfer_rt.export.files.lora.low_rank import has_change, rank, without_place
from synfer_rt.export.files.lora.names import (
    Layer,
    foreign_kind,
    layers_by_name,
    parse_name,
    plain_name,
)
from synfer_rt.export.files.lora.peft_settings import PeftSettings, read_peft_settings
from synfer_rt.export.files.tensor_files import PEFT_SETTINGS_FILE
from synfer_rt.export.sentences import some

OTHER_MODEL = "give one that was trained on the same kind of Stable Diffusion"

_PEFT = "base_model.model."
_HALVES = ({"down", "up"}, {"embedding_down", "embedding_up"})


@dataclass(frozen=True)
class Change:
    """The change of one layer: `parts` as low_rank.py takes them, and the factor of ΔW.

    There may also be `bias_up` (multiplied by the factor) and `bias_diff`, which are both added to
    the bias, and `weight` and `bias`, which replace the layer's own.
    """

    layer: Layer
    parts: Mapping[str, Tensor]
    factor: float


@dataclass
class _Contents:
    """A file's tensors by layer, and the names of all others; `named` are the names in the file."""

    path: Path
    changes: dict[Layer, dict[str, Tensor]] = field(default_factory=dict)
    named: dict[tuple[Layer, str], str] = field(default_factory=dict)
    homeless: dict[str, str] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    settings: dict[str, PeftSettings] = field(default_factory=dict)
    bare: bool = True
    """Whether layers are named as in their model, without a prefix that says which model."""


def read_changes(
    tensors: Mapping[str, Tensor],
    path: Path,
    header: Mapping[str, Any],
    unet: Any,
    text_encoder: Any,
) -> list[Change]:
    """The changes of layers in the `tensors` of the LoRA `path`.

    `header` are PEFT's settings as diffusers writes them into a file, with the prefixes of the
    tensors' names. PEFT itself writes them into adapter_config.json beside the file (or in `path`,
    if that is a directory); a file without prefixes may have them there too.
    Raises UserError for unexpected keys, and for settings that name layers which are not in the
    file.
    """
    names = [plain_name(name) for name in tensors]
    peft = any(name.startswith(_PEFT) for name in names)
    given = {n.removeprefix(_PEFT): t for n, t in zip(names, tensors.values(), strict=True)}
    if len(given) < len(tensors):
        raise UserError(f"The LoRA {path} has two tensors of the same name; fetch it again.")
    if found := foreign_kind(given):
        raise UserError(
            f"{path} is {found[0]} ({found[1]}), which cannot be merged; give a LoRA, LoHa or LoKr "
            "of Stable Diffusion 1.x or 2.x, or a checkpoint that it was merged into."
        )
    contents = _sort(path, given, layers_by_name(unet, text_encoder))
    contents.settings = _settings(contents, peft, header)
    _check_kinds(contents)
    _check_places(contents)
    _check_coverage(contents, {"unet": unet, "text_encoder": text_encoder})
    return [
        Change(layer, parts, _factor(contents, layer)) for layer, parts in contents.changes.items()
    ]


def _sort(path: Path, given: Mapping[str, Tensor], layers: Mapping[str, Layer]) -> _Contents:
    contents = _Contents(path)
    for name, tensor in given.items():
        if (parsed := parse_name(name)) is None:
            contents.strange.append(name)
            continue
        called, what = parsed
        if (layer := layers.get(called)) is None:
            if what in ("weight", "bias"):
                contents.strange.append(name)
            else:
                contents.homeless.setdefault(called, name)
            continue
        contents.bare &= called in layer.names
        parts = contents.changes.setdefault(layer, {})
        if what in parts:
            raise UserError(
                f"The LoRA {path} changes {layer.name} twice, as {name} and "
                f"{contents.named[layer, what]}; give a file that uses one naming scheme."
            )
        if tensor.is_floating_point() and not bool(tensor.double().isfinite().all()):
            raise UserError(
                f"The LoRA {path} has numbers in {name} that are not finite; fetch it again."
            )
        parts[what], contents.named[layer, what] = tensor, name
    return contents


def _settings(
    contents: _Contents, peft: bool, header: Mapping[str, Any]
) -> dict[str, PeftSettings]:
    """PEFT's settings by model, `unet` or `text_encoder`."""
    path, parts = contents.path, {layer.part for layer in contents.changes}
    file = (path if path.is_dir() else path.parent) / PEFT_SETTINGS_FILE
    if peft or (contents.bare and not header and file.is_file()):
        given = read_json(file, f"PEFT writes it beside {path.name}, with the alphas; put it there")
        return {part: read_peft_settings(str(file), given) for part in parts or ("unet",)}
    by_part: dict[str, dict[str, Any]] = {}
    for name, value in header.items():
        part, dot, field_name = name.partition(".")
        for one in [part] if dot else parts:
            by_part.setdefault(one, {})[field_name if dot else name] = value
    if foreign := by_part.keys() - {"unet", "text_encoder"}:
        raise UserError(
            f"The LoRA {path} has settings for {some(foreign)}, which Stable Diffusion 1.x and 2.x "
            f"do not have; {OTHER_MODEL}."
        )
    where = f"The header of {path}"
    return {part: read_peft_settings(where, given) for part, given in by_part.items()}


def _check_kinds(contents: _Contents) -> None:
    """Raise UserError unless the tensors of each layer together are a change of a known kind."""
    strange, halves = [*contents.strange], []
    for layer, parts in contents.changes.items():
        others = parts.keys() - {"bias_diff"} - _replacing(contents.settings.get(layer.part), layer)
        if has_change(parts):
            others = without_place({what: parts[what] for what in others})
        elif any(len(pair & others) == 1 for pair in _HALVES):
            halves.append(layer.name)
            continue
        strange += [contents.named[layer, what] for what in others]
    if strange or not (contents.changes or contents.homeless):
        raise UserError(
            f"{contents.path} is not a LoRA that can be merged: it has the unexpected keys "
            f"{some(strange, 2)}; expected are pairs like unet.….to_q.lora_A.weight and "
            "lora_B.weight, or lora_unet_….lora_down.weight and lora_up.weight (also DoRA, LoHa "
            "and LoKr); give a LoRA with the names of diffusers, PEFT, kohya or ComfyUI."
        )
    if halves:
        raise UserError(
            f"The LoRA {contents.path} has only one of the two matrices of {some(halves, 2)}; "
            "fetch it again."
        )


def _replacing(settings: PeftSettings | None, layer: Layer) -> set[str]:
    """The parameters of a layer that may be in the file whole, by `modules_to_save` and `bias`."""
    if settings is None:
        return set()
    if any(settings.saves(name) for name in layer.names):
        return {"weight", "bias"}
    return {"bias"} if settings.biases else set()


def _check_places(contents: _Contents) -> None:
    """Raise UserError for changes of layers that the models do not have."""
    if not (missing := contents.homeless):
        return
    raise UserError(
        f"The LoRA {contents.path} changes layers that this checkpoint does not have "
        f"({len(missing)} of {len(missing) + len(contents.changes)}): {some(missing, 2)}; "
        f"{OTHER_MODEL}."
    )


def _check_coverage(contents: _Contents, models: Mapping[str, nn.Module]) -> None:
    """Raise UserError if PEFT's settings name layers that are not in the file.

    PEFT leaves such layers unchanged, with a warning; here it means that a part of the file is
    missing.
    """
    for part, settings in contents.settings.items():
        lacking: list[str] = []
        names: list[str] = []
        for name, module in models[part].named_modules():
            layer = Layer(part, name)
            names += layer.names
            held = contents.changes.get(layer, {})
            linear = isinstance(module, nn.Linear)
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)) and settings.targeted(
                layer.names, linear
            ):
                lacking += [] if has_change(held) else [name]
            elif any(map(settings.saves, layer.names)) and not any(module.children()):
                own = {what for what, _ in module.named_parameters(recurse=False)}
                lacking += [] if own <= held.keys() else [name]
        lacking += settings.unknown_targets(names)
        if lacking:
            raise UserError(
                f"{settings.where} names layers of the {part} whose changes are missing in "
                f"{contents.path.name} ({len(lacking)}): {some(lacking, 2)}; fetch the file again, "
                "or remove these layers from target_modules."
            )
        if settings.biases and not any("bias" in parts for parts in contents.changes.values()):
            raise UserError(
                f"{settings.where} says that biases were trained, but {contents.path.name} has "
                "none; fetch it again."
            )


def _factor(contents: _Contents, layer: Layer) -> float:
    """The factor of the change of `layer`: alpha / rank, or as PEFT's settings say."""
    parts, settings = contents.changes[layer], contents.settings.get(layer.part)
    size, alpha = rank(parts), parts.get("alpha")
    if alpha is not None and alpha.numel() != 1:
        raise UserError(
            f"The LoRA {contents.path} has {contents.named[layer, 'alpha']} {list(alpha.shape)}; "
            "an alpha is one number; fetch it again."
        )
    if settings is None or "diff" in parts:
        return 1.0 if size is None else (size if alpha is None else float(alpha)) / size
    says = None
    if size not in (None, settings.rank_of(layer.names)):
        says = f"rank {settings.rank_of(layer.names)} and its matrices have {size}"
    elif alpha is not None and float(alpha) != settings.alpha_of(layer.names):
        says = f"alpha {settings.alpha_of(layer.names):g} and the file {float(alpha):g}"
    elif has_change(parts) and settings.dora != ("magnitude" in parts):
        says = f"use_dora {settings.dora} and the file {'no' if settings.dora else 'has'} magnitude"
    if says:
        raise UserError(
            f"{settings.where} does not belong to the LoRA {contents.path.name}: of {layer.name} "
            f"it says {says}; fetch both again."
        )
    return settings.factor_of(layer.names)
