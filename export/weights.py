"""The weights in a folder of a diffusers directory: which files they are, and how to load them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from synfer_rt.errors import UserError

from .sentences import first_line
from .settings import read_json

_WEIGHT_FILE = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.(\w+))?(?:-\d+-of-\d+)?(?:\.(\w+))?(\.safetensors|\.bin)"
)


def weight_files(folder: Path) -> list[Path]:
    """The files of one variant of the weights: full precision before fp16, then safetensors."""
    return _variant(folder)[0]


def _variant(folder: Path) -> tuple[list[Path], str | None, bool]:
    """The files to load, their variant's name (None for the plain one), whether safetensors."""
    variants: dict[tuple[str, str], list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if found := _WEIGHT_FILE.fullmatch(file.name):
            variants.setdefault((found[1] or found[2] or "", found[3]), []).append(file)
    for variant in ("", "fp16"):
        for suffix in (".safetensors", ".bin"):
            if files := variants.get((variant, suffix)):
                return files, variant or None, suffix == ".safetensors"
    return [], None, False


def load_model(model: Any, folder: Path) -> Any:
    """A model of diffusers or transformers with all its weights, float32, frozen, in eval mode.

    Torch files are read as plain data: code in them is refused, not run. Raises UserError when
    `folder` lacks weights or holds none that can be read.
    """
    files, variant, safe = _variant(folder)
    if not files:
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
    return module.float().requires_grad_(False).eval()


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
