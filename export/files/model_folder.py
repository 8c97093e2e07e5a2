"""A model's folder in a diffusers directory: the files of its weights, and loading them."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import save_file

from synfer_rt.errors import UserError
from synfer_rt.export.files.json_files import read_json
from synfer_rt.export.files.tensor_files import PEFT_SETTINGS_FILE, read_tensors, unwrapped
from synfer_rt.export.sentences import first_line, some

_WEIGHT_FILE = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)"
    r"(?:\.(\w+))?(?:-\d+-of-\d+)?(?:\.(\w+))?(\.safetensors|\.bin)"
)
_OF_A_LOADED_LORA = re.compile(r"(?<![^.])base_layer\.|\.lora_[AB]\.[^.]+\.(?:weight|bias)$")
_OF_A_PROCESSOR = re.compile(r"\.processor\.|_ip\.|\bau_|lora")


def weight_files(folder: Path) -> list[Path]:
    """The files of one variant: full precision, else fp16, else bf16; safetensors first."""
    return _variant(folder)[0]


def _variant(folder: Path) -> tuple[list[Path], str | None, bool]:
    """The files to load, the variant's name (None for full precision), whether safetensors."""
    variants = _variants(folder)
    for variant in ("", "fp16", "bf16"):
        for suffix in (".safetensors", ".bin"):
            if files := variants.get((variant, suffix)):
                return files, variant or None, suffix == ".safetensors"
    return [], None, False


def _variants(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """The weight files of `folder` by the variant's name and their suffix."""
    variants: dict[tuple[str, str], list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if found := _WEIGHT_FILE.fullmatch(file.name):
            variants.setdefault((found[1] or found[2] or "", found[3]), []).append(file)
    return variants


def load_model(model: Any, folder: Path) -> Any:
    """Load a model of diffusers or transformers with all its weights: float32, frozen, eval mode.

    Torch files are read as plain data: code in them is refused, not run. Raises UserError for
    weights that cannot be read, and for missing or unexpected keys.
    """
    files, variant, safe = _variant(folder)
    if (folder / PEFT_SETTINGS_FILE).is_file():  # transformers would also load that LoRA
        raise _with_a_lora(folder, PEFT_SETTINGS_FILE)
    if not files:
        if others := sorted({name for name, _ in _variants(folder)}):
            raise UserError(
                f"{folder} has only the variants {', '.join(others)} of its weights; rename the "
                f"files of one of them to names without the variant, such as .{others[0]}."
            )
        raise UserError(
            f"{folder} holds no weights (*.safetensors or *.bin); fetch the checkpoint again."
        )
    read_json(folder / "config.json", "fetch the checkpoint again")
    module, report = _loaded(model, folder, folder, variant=variant, use_safetensors=safe)
    if any(unwrapped(name) != name for name in report["unexpected_keys"]):
        module, report = _loaded_without_wrappers(model, folder, files)
    if split := [n for n in report["unexpected_keys"] if _OF_A_LOADED_LORA.search(n)]:
        raise _with_a_lora(folder, some(split, 1))
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"{folder} has missing keys of its {model.__name__} ({len(missing)}), such as "
            f"{missing[0]}; fetch the checkpoint again."
        )
    _refuse_strays(folder, module, report["unexpected_keys"])
    return module.float().requires_grad_(False).eval()


def _loaded(model: Any, folder: Path, source: Path, **which: Any) -> tuple[Any, dict[str, Any]]:
    """The model in `source`, and the loader's report; `folder` is for messages."""
    try:
        with quiet():
            return model.from_pretrained(
                source,
                local_files_only=True,
                output_loading_info=True,
                torch_dtype=torch.float32,
                **which,
            )
    except Exception as error:  # each format and library raises errors of its own
        reason = first_line(error)
        raise UserError(
            f"{folder} cannot be loaded as {model.__name__} ({reason}); fetch the checkpoint again."
        ) from error


def _loaded_without_wrappers(
    model: Any, folder: Path, files: Sequence[Path]
) -> tuple[Any, dict[str, Any]]:
    """As _loaded, for weights that were saved from within torch.compile, DataParallel or FSDP."""
    tensors = {name: t for file in files for name, t in read_tensors(file, "weights").items()}
    with TemporaryDirectory() as place:
        copy = Path(place)
        shutil.copyfile(folder / "config.json", copy / "config.json")
        of_diffusers = issubclass(model, diffusers.ModelMixin)
        file = copy / f"{'diffusion_pytorch_' if of_diffusers else ''}model.safetensors"
        plain = {unwrapped(name): tensor.contiguous() for name, tensor in tensors.items()}
        save_file(plain, file, {"format": "pt"})
        return _loaded(model, folder, copy, use_safetensors=True)


def _with_a_lora(folder: Path, sign: str) -> UserError:
    return UserError(
        f"{folder} was saved while a LoRA was loaded (it holds {sign}); load it as before, call "
        "unload_lora_weights() to give the LoRA as `lora`, or fuse_lora() and then "
        "unload_lora_weights() to keep it in the weights, and save it again."
    )


def _refuse_strays(folder: Path, module: Any, unexpected: Collection[str]) -> None:
    strays = [name for name in unexpected if not name.endswith("position_ids")]
    if isinstance(module, transformers.CLIPTextModel):
        # A whole CLIP may take the place of its text encoder: its other parts are not used.
        own = {name for name, _ in module.named_children()}
        strays = [name for name in strays if name.partition(".")[0] in own]
    if not strays:
        return
    remedy = "remove them, or correct its config.json"
    if any(_OF_A_PROCESSOR.search(name) for name in strays):
        remedy = "an AU adapter belongs in au_adapter.safetensors, a LoRA in a file for `lora`"
    raise UserError(
        f"{folder} has unexpected keys for its {type(module).__name__} ({len(strays)}), such as "
        f"{some(strays, 2)}; {remedy}."
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loaders' messages and progress bars; their reports are checked instead."""
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
