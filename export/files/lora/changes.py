"""What a LoRA file says: for each layer the matrices of its change, and their factor.

The names of the tensors tell the layer (lora_names.py); alphas in the file or PEFT's settings
(lora_settings.py) tell the factor. A file of which anything would be left out is refused.
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
    """What a file does to one layer: `parts` as low_rank.py takes them, and the factor of ΔW.

    Beside ΔW there may be `bias_up`, times the factor too, and `bias_diff`, both added to the bias,
    and `weight` and `bias`, which replace the layer's own.
    """

    layer: Layer
    parts: Mapping[str, Tensor]
    factor: float


@dataclass
class _Contents:
    """A file's tensors by layer, and the names of all others; `named` are the file's names."""

    path: Path
    changes: dict[Layer, dict[str, Tensor]] = field(default_factory=dict)
    named: dict[tuple[Layer, str], str] = field(default_factory=dict)
    homeless: dict[str, str] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    settings: dict[str, PeftSettings] = field(default_factory=dict)
    bare: bool = True
    """Whether layers are named as in their model, with nothing before that says which."""


def read_changes(
    tensors: Mapping[str, Tensor],
    path: Path,
    header: Mapping[str, Any],
    unet: Any,
    text_encoder: Any,
) -> list[Change]:
    """The changes of layers that the `tensors` of the LoRA `path` are.

    `header` are PEFT's settings as diffusers writes them into a file, their names prefixed like the
    tensors'. What PEFT itself has saved has them in adapter_config.json beside `path`, or in it;
    so may a file whose names have no prefix.
    Raises UserError for any tensor without a use, and for settings that name layers which the file
    does not hold.
    """
    names = [plain_name(name) for name in tensors]
    peft = any(name.startswith(_PEFT) for name in names)
    given = {n.removeprefix(_PEFT): t for n, t in zip(names, tensors.values(), strict=True)}
    if len(given) < len(tensors):
        raise UserError(f"The LoRA {path} names one of its tensors twice; fetch it again.")
    if found := foreign_kind(given):
        raise UserError(
            f"{path} is {found[0]} ({found[1]}), which is not merged here; give a LoRA, LoHa or "
            "LoKr of Stable Diffusion 1.x or 2.x, or the checkpoint that it was merged into."
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
                f"{contents.named[layer, what]}; give a file with one kind of names."
            )
        if tensor.is_floating_point() and not bool(tensor.double().isfinite().all()):
            raise UserError(
                f"The LoRA {path} has {name} with numbers that are not finite; fetch it again."
            )
        parts[what], contents.named[layer, what] = tensor, name
    return contents


def _settings(
    contents: _Contents, peft: bool, header: Mapping[str, Any]
) -> dict[str, PeftSettings]:
    """PEFT's settings by the model that they are of."""
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
            f"The LoRA {path} has settings of {some(foreign)}, which Stable Diffusion 1.x and 2.x "
            f"do not have; {OTHER_MODEL}."
        )
    where = f"The header of {path}"
    return {part: read_peft_settings(where, given) for part, given in by_part.items()}


def _check_kinds(contents: _Contents) -> None:
    """UserError unless all tensors of each layer together are changes of known kinds."""
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
            f"{contents.path} is no LoRA that can be merged: it holds {some(strange, 2)}; expected "
            "are pairs like unet.….to_q.lora_A.weight and lora_B.weight, or "
            "lora_unet_….lora_down.weight and lora_up.weight (also DoRA, LoHa and LoKr); give a "
            "LoRA with the names of diffusers, PEFT, kohya or ComfyUI."
        )
    if halves:
        raise UserError(
            f"The LoRA {contents.path} has one matrix of the two of {some(halves, 2)}; fetch it "
            "again."
        )


def _replacing(settings: PeftSettings | None, layer: Layer) -> set[str]:
    """What of a layer the file may hold whole, after PEFT's `modules_to_save` and `bias`."""
    if settings is None:
        return set()
    if any(settings.saves(name) for name in layer.names):
        return {"weight", "bias"}
    return {"bias"} if settings.biases else set()


def _check_places(contents: _Contents) -> None:
    """UserError if anything is of a layer that the models do not have."""
    if not (missing := contents.homeless):
        return
    raise UserError(
        f"The LoRA {contents.path} changes layers that this checkpoint does not have "
        f"({len(missing)} of {len(missing) + len(contents.changes)}): {some(missing, 2)}; "
        f"{OTHER_MODEL}."
    )


def _check_coverage(contents: _Contents, models: Mapping[str, nn.Module]) -> None:
    """UserError if PEFT's settings name layers that the file does not hold.

    PEFT leaves such layers as they are, with a remark; here it means that a part of the file is
    lost.
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
                f"{settings.where} names layers of the {part} whose change {contents.path.name} "
                f"does not hold ({len(lacking)}): {some(lacking, 2)}; fetch the file again, or "
                "name in target_modules only layers that it holds."
            )
        if settings.biases and not any("bias" in parts for parts in contents.changes.values()):
            raise UserError(
                f"{settings.where} says that biases were trained, but {contents.path.name} holds "
                "none; fetch it again."
            )


def _factor(contents: _Contents, layer: Layer) -> float:
    """What the change of `layer` is multiplied by: alpha / rank, or as PEFT's settings say."""
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
