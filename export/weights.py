"""The weights in a folder of a diffusers directory: which files they are, and how to load them."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from synfer_rt.errors import UserError

from .sentences import first_line, some
from .settings import read_json

_WEIGHT_FILE = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.(\w+))?(?:-\d+-of-\d+)?(?:\.(\w+))?(\.safetensors|\.bin)"
)
_OF_A_PROCESSOR = re.compile(r"\.processor\.|_ip\.|\bau_|lora")


def weight_files(folder: Path) -> list[Path]:
    """The files of one variant: full precision, else fp16, else bf16; rather safetensors."""
    return _variant(folder)[0]


def _variant(folder: Path) -> tuple[list[Path], str | None, bool]:
    """The files to load, their variant's name (None for the plain one), whether safetensors."""
    variants = _variants(folder)
    for variant in ("", "fp16", "bf16"):
        for suffix in (".safetensors", ".bin"):
            if files := variants.get((variant, suffix)):
                return files, variant or None, suffix == ".safetensors"
    return [], None, False


def _variants(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """The weight files of `folder` by their variant's name and their suffix."""
    variants: dict[tuple[str, str], list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if found := _WEIGHT_FILE.fullmatch(file.name):
            variants.setdefault((found[1] or found[2] or "", found[3]), []).append(file)
    return variants


def load_model(model: Any, folder: Path) -> Any:
    """A model of diffusers or transformers with all its weights, float32, frozen, in eval mode.

    Torch files are read as plain data: code in them is refused, not run. Raises UserError when
    `folder` lacks weights, holds none that can be read, or more than the model has a place for.
    """
    files, variant, safe = _variant(folder)
    if not files:
        if others := sorted({name for name, _ in _variants(folder)}):
            raise UserError(
                f"{folder} holds its weights as {', '.join(others)} alone; rename the files that "
                f"you want to plain names, without .{others[0]}."
            )
        raise UserError(
            f"{folder} holds no weights (*.safetensors or *.bin); fetch the checkpoint again."
        )
    read_json(folder / "config.json", "fetch the checkpoint again")
    try:
        with quiet():
            module, report = model.from_pretrained(
                folder,
                local_files_only=True,
                output_loading_info=True,
                variant=variant,
                use_safetensors=safe,
                torch_dtype=torch.float32,
            )
    except Exception as error:  # each format and library raises its own kinds
        reason = first_line(error)
        raise UserError(
            f"{folder} cannot be loaded as {model.__name__} ({reason}); fetch the checkpoint again."
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} weights of its {model.__name__}, such as {missing[0]}; "
            "fetch the checkpoint again."
        )
    _refuse_strays(folder, module, report["unexpected_keys"])
    return module.float().requires_grad_(False).eval()


def _refuse_strays(folder: Path, module: Any, unexpected: Collection[str]) -> None:
    strays = [name for name in unexpected if not name.endswith("position_ids")]
    if isinstance(module, transformers.CLIPTextModel):
        # A whole CLIP may stand in for its text half: towers and projections beside it are unused.
        own = {name for name, _ in module.named_children()}
        strays = [name for name in strays if name.partition(".")[0] in own]
    if not strays:
        return
    remedy = "remove them, or correct its config.json"
    if any(_OF_A_PROCESSOR.search(name) for name in strays):
        remedy = "an AU adapter belongs in au_adapter.safetensors, a LoRA in a file for --lora"
    raise UserError(
        f"{folder} holds {len(strays)} weights that its {type(module).__name__} has no place for, "
        f"such as {some(strays, 2)}; {remedy}."
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loaders' remarks and progress bars; what matters of them is checked instead."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    bars = [library.utils.logging for library in (diffusers, transformers)]
    shown = [bar.is_progress_bar_enabled() for bar in bars]
    for logger, bar in zip(loggers, bars, strict=True):
        logger.setLevel(logging.CRITICAL)
        bar.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level, bar, on in zip(loggers, levels, bars, shown, strict=True):
            logger.setLevel(level)
            if on:
                bar.enable_progress_bar()
