"""PEFT's settings of a LoRA: ranks, alphas, and the layers that it changes.

PEFT writes them as adapter_config.json, diffusers into the header of a safetensors file. Fields and
rules are those of `peft.LoraConfig` (https://huggingface.co/docs/peft/package_reference/lora).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from synfer_rt.errors import UserError

_TYPES = {"LORA", "LOHA", "LOKR"}
_KEEP_THE_BASE = {"true", "false", "gaussian", "eva", "orthogonal", "mica"}
"""Initialisations that leave the base weights unchanged."""
_NO_EFFECT = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version"),
    *("revision", "task_type", "runtime_config", "lora_dropout", "rank_dropout"),
    *("module_dropout", "rank_dropout_scale", "fan_in_fan_out", "ensure_weight_tying"),
    *("megatron_config", "megatron_core", "qalora_group_size", "use_effective_conv2d"),
    *("decompose_both", "decompose_factor", "loftq_config", "eva_config", "corda_config"),
    *("lora_ga_config", "velora_config"),
}
"""Fields that affect only the training, or that show in the tensors; `fan_in_fan_out` is for layers
that Stable Diffusion does not have."""
_READ = {
    *("r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("modules_to_save", "bias", "lora_bias", "init_lora_weights", "init_weights"),
}


@dataclass(frozen=True)
class PeftSettings:
    """The settings of one model's LoRA; `where` is their place, for messages.

    `rank` and `alpha` are those of a layer unless the first matching regular expression of a
    pattern gives another number. `targets` name the changed layers: a regular expression, or ends
    of names. `saved` are the modules that the file holds whole, beside low-rank changes.
    """

    where: str
    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    by_root: bool
    dora: bool
    targets: str | tuple[str, ...]
    excluded: str | tuple[str, ...]
    indices: tuple[int, ...]
    lists: tuple[str, ...]
    saved: tuple[str, ...]
    biases: bool

    def rank_of(self, names: Iterable[str]) -> int:
        """The rank of the layer with any of these `names`."""
        return _by_pattern(self.rank_pattern, names, self.rank)

    def factor_of(self, names: Iterable[str]) -> float:
        """The factor of up @ down of that layer: alpha / rank, for rsLoRA alpha / √rank."""
        rank = self.rank_of(names)
        return self.alpha_of(names) / (math.sqrt(rank) if self.by_root else rank)

    def alpha_of(self, names: Iterable[str]) -> float:
        """The alpha of that layer."""
        return _by_pattern(self.alpha_pattern, names, self.alpha)

    def targeted(self, names: Iterable[str], linear: bool) -> bool:
        """Whether the settings name the layer as changed; `linear` if it is a linear layer."""
        if any(self.saves(name) or _ends(name, self.excluded) for name in names):
            return False
        if self.targets == "all-linear":
            return linear
        return any(_ends(name, self.targets) and self._indexed(name) for name in names)

    def saves(self, name: str) -> bool:
        """Whether `name` is in a module that the file holds whole."""
        return any(re.match(rf"(^|.*\.){module}($|\..*)", name) for module in self.saved)

    def unknown_targets(self, names: Collection[str]) -> list[str]:
        """Targets with a layer number that match none of `names`: layers of another model."""
        listed = () if isinstance(self.targets, str) else self.targets
        return [
            target
            for target in listed
            if re.search(r"\.\d+\.", target) and not any(_ends(name, (target,)) for name in names)
        ]

    def _indexed(self, name: str) -> bool:
        if not self.indices or isinstance(self.targets, str):
            return True
        patterns = [rf"(?:^|.*?\.){part}\.(\d+)\." for part in self.lists] or [
            r".*?\.[^.]*\.(\d+)\."
        ]
        found = next((at for pattern in patterns if (at := re.match(pattern, name))), None)
        return found is not None and int(found[1]) in self.indices


def _by_pattern(pattern: Mapping[str, Any], names: Iterable[str], default: Any) -> Any:
    names = tuple(names)
    for expression, value in pattern.items():
        if any(re.match(rf"(.*\.)?({expression})$", name) for name in names):
            return value
    return default


def _ends(name: str, given: str | tuple[str, ...]) -> bool:
    if isinstance(given, str):
        return re.fullmatch(given, name) is not None
    return any(name == end or name.endswith(f".{end}") for end in given)


def read_peft_settings(where: str, given: Mapping[str, Any]) -> PeftSettings:
    """Check and read the settings `given`; `where` is their place, for messages.

    Raises UserError for settings of anything but a LoRA, of a LoRA whose base weights were changed
    before its training, and for fields that merged weights cannot express.
    """
    kind = str(given.get("peft_type", "LORA")).rpartition(".")[2].upper()
    if kind not in _TYPES:
        raise UserError(
            f"{where} holds settings of {kind}, not of a LoRA; merge it into the checkpoint with "
            "PEFT (merge_and_unload) and give that checkpoint, or give a LoRA."
        )
    _refuse_initialisation(where, given)
    unknown = sorted(name for name, v in given.items() if v and name not in _READ | _NO_EFFECT)
    if unknown:
        raise UserError(
            f"{where} has the field {unknown[0]}, which merged weights cannot express; give a LoRA "
            "that was trained without it, or merge it with PEFT (merge_and_unload) and give that "
            "checkpoint."
        )
    try:
        return _settings(where, given)
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise UserError(
            f"{where} does not hold settings of a LoRA ({type(error).__name__}: {error}); fetch it "
            "again."
        ) from error


def _refuse_initialisation(where: str, given: Mapping[str, Any]) -> None:
    start = str(given.get("init_lora_weights", True))
    if start.lower() in _KEEP_THE_BASE:
        return
    remedy = (
        "save it again with PEFT's save_pretrained(DIR, path_initial_model_for_weight_conversion="
        "INITIAL), which makes a plain LoRA of it"
    )
    if start.lower() == "loftq":
        remedy = "merge it into the weights that it was trained on, and give that checkpoint"
    raise UserError(
        f"{where} says that training began with init_lora_weights {start!r}, which also changes "
        f"the base weights, so the LoRA does not fit the unchanged checkpoint; {remedy}."
    )


def _settings(where: str, given: Mapping[str, Any]) -> PeftSettings:
    rank, alpha = given.get("r", 8), given.get("lora_alpha", given.get("alpha", 8))
    ranks, alphas = given.get("rank_pattern") or {}, given.get("alpha_pattern") or {}
    for number in (rank, alpha, *ranks.values(), *alphas.values()):
        if isinstance(number, bool) or not math.isfinite(number):
            raise ValueError(f"{number!r} is no rank and no alpha")
    if any(number < 1 for number in (rank, *ranks.values())):
        raise ValueError(f"a rank of {min([rank, *ranks.values()])}")
    indices = given.get("layers_to_transform")
    targets, excluded = _names(given, "target_modules"), _names(given, "exclude_modules")
    patterns = [*ranks, *alphas, *(name for name in (targets, excluded) if isinstance(name, str))]
    for expression in patterns:
        re.compile(expression)
    lists, saved = _names(given, "layers_pattern"), _names(given, "modules_to_save")
    return PeftSettings(
        where=where,
        rank=rank,
        alpha=alpha,
        rank_pattern=ranks,
        alpha_pattern=alphas,
        by_root=bool(given.get("use_rslora")),
        dora=bool(given.get("use_dora")),
        targets=targets,
        excluded=excluded,
        indices=tuple([indices] if isinstance(indices, int) else indices or ()),
        lists=(lists,) if isinstance(lists, str) else lists,
        saved=(saved,) if isinstance(saved, str) else saved,
        biases=given.get("bias", "none") not in ("none", None, False),
    )


def _names(given: Mapping[str, Any], field: str) -> str | tuple[str, ...]:
    """A regular expression, or a list of names."""
    value = given.get(field) or ()
    if not isinstance(value, (str, list, tuple)) or not all(isinstance(n, str) for n in value):
        raise TypeError(f"{field} is {value!r}")
    return value if isinstance(value, str) else tuple(value)
