"""Files of tensors, read as plain data: safetensors, and torch files without running their code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from synfer_rt.errors import UserError
from synfer_rt.export.sentences import first_line

PEFT_SETTINGS_FILE = "adapter_config.json"
"""The file beside a LoRA in which PEFT writes its settings, such as the alphas."""

_PEFT_SETTINGS = "lora_adapter_metadata"
_WRAPPERS = re.compile(
    r"(?<![^.])(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
"""The prefixes of torch's DataParallel, compile, FSDP and activation checkpointing in names."""


def unwrapped(name: str) -> str:
    """The name of a tensor without the prefixes of torch's wrappers."""
    return _WRAPPERS.sub("", name)


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """Every tensor of a safetensors or torch file by its dotted name.

    Numbers are left out, except the alpha of a LoRA, which becomes a tensor without dimensions.
    `what` names the file in messages. Raises UserError for a file of another kind and for one that
    is cut short. A torch file is read as plain data: code in it is refused, not run.
    """
    with path.open("rb") as file:
        head = file.read(9)
        # The length of a safetensors header comes first, and may look like the start of a pickle.
        safe = head[5:] == b"\0\0\0{"
        if not safe and (head[:2] == b"PK" or head[:1] == b"\x80"):
            file.seek(0)
            # torch chooses its reader by the name of the file unless it is given an open one.
            try:
                content = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:
                raise UserError(
                    f"The {what} {path} is a torch file that cannot be read as plain tensors "
                    f"({first_line(error)}); fetch it again or save it as safetensors."
                ) from error
            return dict(_flatten(content))
    if not safe:
        raise UserError(
            f"The {what} {path} is neither a safetensors nor a torch file; give one of these."
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"The {what} {path} is not a complete safetensors file ({first_line(error)}); "
            "fetch it again."
        ) from error


def _flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield prefix, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(content, (int, float)) and prefix.endswith(".alpha"):
        yield prefix, torch.tensor(float(content))


def read_header_settings(path: Path) -> dict[str, Any]:
    """PEFT's settings as diffusers writes them into a safetensors header; empty if there are none.

    Raises UserError for settings that are not a JSON object.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_PEFT_SETTINGS)
    except SafetensorError:
        return {}
    if text is None:
        return {}
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise UserError(
            f"The header of {path} has a {_PEFT_SETTINGS} that is not a JSON object, so the alphas "
            "are unknown; fetch the file again."
        )
    return settings
