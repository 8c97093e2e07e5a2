"""The files of a directory that make up one AU adapter, and the plain names of their tensors.

Each part of FineFace has a file of its own, and a directory may hold the files of several base
models, such as `au_encoder.ckpt` and `sd15_au_encoder.ckpt`. The rest of their names, without the
usual words, tells the adapters apart; a LoRA belongs to the adapter with the same rest.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from synfer_rt.errors import UserError
from synfer_rt.export.files.tensor_files import PEFT_SETTINGS_FILE, read_tensors, unwrapped
from synfer_rt.export.sentences import some

SUFFIXES = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")
"""The suffixes of an adapter's file."""

TRAINED_AS = {"image_proj_model": "image_proj", "adapter_modules": "ip_adapter"}
"""The names of the two groups in IP-Adapter's training code."""

_WRAPPERS = ("state_dict", "model", "unet")
_LORA = re.compile(r"\.lora|_lora\.|^lora_|\.(?:alpha|dora_scale)$|\.(?:hada|lokr)_")
_USUAL = re.compile(
    r"au[-_]?encoder|(?:attn|attention)[-_]?processors?|pytorch_lora_weights|adapter_model|"
    r"lora_weights|lora|ip[-_]?adapter"
)
_Contents = dict[Path, dict[str, Tensor]]


@dataclass(frozen=True)
class AdapterFiles:
    """The files of one adapter, and all their tensors by the names that the files have."""

    files: tuple[Path, ...]
    tensors: dict[str, Tensor]


def is_lora(name: str) -> bool:
    """Whether a tensor of this name belongs to a LoRA."""
    return _LORA.search(name) is not None


def is_synfer(name: str) -> bool:
    """Whether a tensor of this plain name belongs to SynFER's format."""
    return name.startswith(("image_proj.", "ip_adapter."))


def is_fineface(name: str) -> bool:
    """Whether a tensor of this plain name belongs to FineFace's format."""
    return ".au_to_" in name or name.startswith("au_encoder.")


def plain_name(name: str) -> str:
    """`name` without the prefixes of training frameworks, such as `module.unet.`."""
    name = unwrapped(name)
    head, _, rest = name.partition(".")
    if head in _WRAPPERS or name.startswith("au_encoder.au_encoder."):
        return plain_name(rest)
    return f"{TRAINED_AS[head]}.{rest}" if head in TRAINED_AS else name


def read_sets(path: Path) -> list[AdapterFiles]:
    """Every adapter in `path`: one in a file, one or several in a directory or in its folders.

    Raises UserError if there is none, and for unknown tensors that may belong to an adapter.
    """
    if path.is_file():
        return [AdapterFiles((path,), read_tensors(path, "AU adapter"))]
    if not path.is_dir():
        raise UserError(f"There is no AU adapter {path}; give its file as `au_adapter`.")
    if sets := _sets(path):
        return sets
    if inner := [
        one for folder in sorted(path.iterdir()) if folder.is_dir() for one in _sets(folder)
    ]:
        return inner
    raise UserError(
        f"{path} holds no file of an AU adapter; give a directory with FineFace's "
        "au_encoder and attn_processors, or the adapter's own file."
    )


def _sets(folder: Path) -> list[AdapterFiles]:
    fineface: _Contents = {}
    synfer: _Contents = {}
    loras: _Contents = {}
    strays: dict[Path, list[str]] = {}
    for file in sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES and f.is_file()):
        content = read_tensors(file, "AU adapter")
        others = [n for n in content if not is_lora(n)]
        if content and not others:
            loras[file] = content
        elif others and all(is_fineface(plain_name(n)) for n in others):
            fineface[file] = content
        elif others and all(is_synfer(plain_name(n)) for n in others):
            synfer[file] = content
        elif any(is_fineface(plain_name(n)) for n in others):
            # A training run may also leave its frozen UNet, which is no part of the adapter.
            strays[file] = [n for n in others if not is_fineface(plain_name(n))]
    cores = [*_by_label(fineface), *({file: content} for file, content in synfer.items())]
    if strays and not _whole(cores):
        file, names = next(iter(strays.items()))
        raise UserError(
            f"{file} has the unexpected keys {some(names, 2)} beside FineFace's layers, which "
            "change how the AUs act; give an adapter in FineFace's or SynFER's own format."
        )
    return [_joined(folder, core) for core in _with_loras(folder, cores, loras)]


def _whole(cores: Iterable[_Contents]) -> bool:
    """Whether one of the sets has both parts of FineFace, or is in SynFER's format."""
    names = [{plain_name(name) for content in core.values() for name in content} for core in cores]
    return any(
        any(map(is_synfer, own))
        or ("au_encoder.weight" in own and any(".au_to_" in name for name in own))
        for own in names
    )


def _by_label(contents: _Contents) -> list[_Contents]:
    """One set if no two files hold the same tensor, else one for each label of such files.

    A file that shares no tensor with another, and has no set's label, belongs to every set.
    """
    count = Counter(plain_name(name) for content in contents.values() for name in content)
    rivals = [f for f, c in contents.items() if any(count[plain_name(name)] > 1 for name in c)]
    if not rivals:
        return [contents] if contents else []
    labels = sorted({_label(file) for file in rivals})
    shared = {f: c for f, c in contents.items() if _label(f) not in labels}
    return [{f: c for f, c in contents.items() if _label(f) == label} | shared for label in labels]


def _label(file: Path) -> str:
    """The file's name without the usual words: `sd15` of sd15_au_encoder.ckpt."""
    return _USUAL.sub("", file.stem.lower()).strip("-_. ")


def _with_loras(folder: Path, cores: list[_Contents], loras: _Contents) -> list[_Contents]:
    """Each set with the LoRAs of its label; a single set with all LoRAs."""
    if len(cores) < 2:
        return [core | loras for core in cores]
    sets = [
        core | {f: c for f, c in loras.items() if _label(f) in {_label(of) for of in core}}
        for core in cores
    ]
    if alone := [file.name for file in loras if not any(file in one for one in sets)]:
        raise UserError(
            f"{folder} holds {len(cores)} AU adapters, and the LoRA {some(alone)} is named like "
            "none of them; put the files of one adapter into a directory of their own, and give "
            "that as `au_adapter`."
        )
    return sets


def _joined(folder: Path, contents: _Contents) -> AdapterFiles:
    tensors: dict[str, Tensor] = {}
    for file, content in sorted(contents.items()):
        if twice := tensors.keys() & content.keys():
            raise UserError(
                f"{folder} holds {some(twice, 1)} in {file.name} and in another file; put the "
                "files of one adapter into a directory of their own, and give that as "
                "`au_adapter`."
            )
        tensors |= content
    settings = folder / PEFT_SETTINGS_FILE
    beside = [settings] if any(map(is_lora, tensors)) and settings.is_file() else []
    return AdapterFiles((*sorted(contents), *beside), tensors)
