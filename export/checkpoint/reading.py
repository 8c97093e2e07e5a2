"""Read a whole checkpoint (contents.py), part by part; whatever is wrong with it is a UserError."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers

from synfer_rt.bundle.identity import GUIDE
from synfer_rt.bundle.sizes import Size
from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.contents import (
    ADAPTER_FILES,
    ADDITIONS,
    AU_READER_FILE,
    LAYOUTS_FILE,
    Checkpoint,
)
from synfer_rt.export.checkpoint.distilled import (
    DISTILLED_FOLDER,
    check_sampling,
    check_student,
    why_left_out,
)
from synfer_rt.export.checkpoint.few_step import Recognised, defaults_of, few_step_of
from synfer_rt.export.checkpoint.image_sizes import free_sizes, set_size
from synfer_rt.export.checkpoint.kinds import Kind, check_networks, kind_of
from synfer_rt.export.checkpoint.scheduler import Scheduler, read_scheduler
from synfer_rt.export.checkpoint.settings import (
    SETTINGS_FILE,
    Settings,
    check_defaults,
    read_settings,
)
from synfer_rt.export.files.au_adapter import AUAdapter, read_adapter
from synfer_rt.export.files.json_files import read_json
from synfer_rt.export.files.lora.merge import Lora, merge_lora, merge_tensors
from synfer_rt.export.files.model_folder import load_model, quiet, weight_files
from synfer_rt.export.files.tensor_files import read_header_settings
from synfer_rt.export.networks.au_reader import AUReaderSource, read_au_reader
from synfer_rt.export.networks.classifier import ClassifierSource, read_classifier
from synfer_rt.export.networks.guiding_classifier import IMAGE_FOLDER
from synfer_rt.export.networks.modules import adapter_layers
from synfer_rt.export.sentences import first_line


def read_checkpoint(
    directory: Path,
    au_adapter: Path | None = None,
    classifiers: tuple[ClassifierSource, ...] = (),
    loras: Sequence[Lora] = (),
    resolution: Size | None = None,
    sizes: tuple[int, int] | None = None,
    few_step: str | None = None,
) -> Checkpoint:
    """Read `directory`; `au_adapter` replaces its adapter, `classifiers` its classifiers.

    `loras` are merged in their order, after one that comes with the adapter. `resolution` is (H, W)
    in pixels, None for the checkpoint's own. `sizes` are the smallest and the largest edge of free
    size, None for one size. Layouts and ADDITIONS fit latents of one size: a checkpoint built at
    another size goes without both, one of free size without the additions and an ONNX file that
    guides. `few_step` says how few steps are sampled, None to go by its LoRAs and scheduler.
    Raises UserError for whatever is missing, unreadable, unsupported or does not fit together.
    """
    index = _read_index(directory)
    kind = kind_of(directory, index)
    unet, vae, text_encoder = _load_networks(directory, kind)
    resized = set_size(directory, unet, vae, resolution)
    path, adapter = _read_adapter(directory, au_adapter, unet)
    layouts = None if resized else _layouts(directory)
    recognised = few_step_of(loras, few_step)
    scheduler = _read_scheduler(directory, index, recognised)
    implied = defaults_of(recognised, scheduler.solver, bool(unet.config.time_cond_proj_dim))
    additions, left_out = _additions(directory, not (resized or sizes), au_adapter, loras)
    has = layouts is not None, DISTILLED_FOLDER in additions
    found = read_settings(directory, adapter, path, unet, text_encoder, *has, implied)
    settings, remarks = _few_steps(recognised, implied, found)
    adapter = _with_settings(adapter, settings)
    _merge_loras(path, adapter, loras, unet, text_encoder)
    _check_sampling(directory, settings, scheduler, unet)
    if settings.distilled is not None:
        check_student(directory, unet)
    classifiers = classifiers or _read_classifiers(directory)
    au_reader = _read_au_reader(directory, settings)
    folders = [directory / part for part in (*kind.classes, *additions)]
    checkpoint = Checkpoint(
        directory=directory,
        kind=kind,
        settings=settings,
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=_read_tokenizer(directory / "tokenizer"),
        adapter=adapter,
        schedule=scheduler.schedule,
        prediction_type=scheduler.prediction_type,
        classifiers=classifiers,
        au_reader=au_reader,
        additions=additions,
        layouts=layouts,
        weight_files=_weight_files(folders, adapter, loras, classifiers, au_reader),
        sizes=sizes and free_sizes(directory, unet, vae, *sizes),
        scheduler_changes=scheduler.changes,
        remarks=(*scheduler.remarks, *remarks, *left_out, *_lost(classifiers, settings)),
    )
    return checkpoint if sizes else _guided(checkpoint)


def _lost(classifiers: Sequence[ClassifierSource], settings: Settings) -> Iterator[str]:
    """Remarks on classes of classifiers that are none of the model's."""
    for source in classifiers:
        yield from source.remarks(settings.label_scheme)


def _read_index(directory: Path) -> dict[str, Any]:
    if directory.is_file():
        raise UserError(
            f"{directory} is a file; make a directory of it with diffusers' "
            f'StableDiffusionPipeline.from_single_file("{directory}").save_pretrained(DIR), and '
            "give that directory."
        )
    if not directory.is_dir():
        raise UserError(
            f"There is no directory {directory}; `hf download NAME --local-dir DIR` fetches a "
            "model of the Hugging Face Hub."
        )
    return read_json(directory / "model_index.json", "a diffusers directory has one")


def _load_networks(directory: Path, kind: Kind) -> tuple[Any, Any, Any]:
    """The UNet, the VAE and the text encoder, found to be of the `kind`."""
    unet, vae, text_encoder = (
        load_model(kind.classes[part], directory / part) for part in ("unet", "vae", "text_encoder")
    )
    check_networks(directory, kind, unet, vae, text_encoder)
    return unet, vae, text_encoder


def _read_adapter(
    directory: Path, au_adapter: Path | None, unet: Any
) -> tuple[Path, AUAdapter | None]:
    """The AU adapter and its path; None, and the path where it would be, if there is none."""
    own = [file for name in ADAPTER_FILES if (file := directory / name).exists()]
    path = au_adapter or (own or [directory / ADAPTER_FILES[0]])[0]
    if au_adapter is None and not own:
        return path, None
    return path, read_adapter(path, adapter_layers(unet), unet.config.cross_attention_dim)


def _layouts(directory: Path) -> Path | None:
    file = directory / LAYOUTS_FILE
    return file if file.is_file() else None


def _read_scheduler(
    directory: Path, index: Mapping[str, Any], recognised: Recognised | None
) -> Scheduler:
    changes = None if recognised is None else recognised.kind.scheduler
    return read_scheduler(directory / "scheduler", index["scheduler"][1], changes)


def _few_steps(
    recognised: Recognised | None, implied: Mapping[str, Any], settings: Settings
) -> tuple[Settings, tuple[str, ...]]:
    """The settings of a recognised model with the `implied` defaults, and the remark on them."""
    if recognised is None:
        return settings, ()
    remark = recognised.remark(implied, settings.defaults)
    return replace(settings, defaults=settings.defaults | dict(implied)), (remark,)


def _additions(
    directory: Path, one_size: bool, au_adapter: Path | None, loras: Sequence[Lora]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The folders of ADDITIONS that are built, and sentences on others.

    `one_size` is whether images have the checkpoint's own size alone.
    """
    own = {(directory / name).resolve() for name in ADAPTER_FILES}
    other_adapter = au_adapter is not None and au_adapter.resolve() not in own
    changed = "lora" if loras else "au_adapter" if other_adapter else None
    left_out = why_left_out(directory, one_size=one_size, changed=changed)
    names = [name for name in ADDITIONS if one_size and (directory / name).is_dir()]
    if left_out is None:
        return tuple(names), ()
    return tuple(name for name in names if name != DISTILLED_FOLDER), (left_out,)


def _with_settings(adapter: AUAdapter | None, settings: Settings) -> AUAdapter | None:
    if adapter is None:
        return None
    if settings.activation is not None:
        adapter.projection.activate(settings.activation)
    return replace(adapter, maximum=settings.au_maximum)


def _merge_loras(
    path: Path, adapter: AUAdapter | None, loras: Sequence[Lora], unet: Any, text_encoder: Any
) -> None:
    """Merge the LoRA that came with the adapter in `path`, if any, then `loras`, in place."""
    with quiet():
        if adapter is not None and adapter.lora:
            header = {k: v for file in adapter.files for k, v in read_header_settings(file).items()}
            beside = adapter.files[0].parent if path.is_dir() else path
            merge_tensors(adapter.lora, unet, text_encoder, 1.0, beside, header)
        for lora in loras:
            merge_lora(lora, unet, text_encoder)


def _check_sampling(directory: Path, settings: Settings, scheduler: Scheduler, unet: Any) -> None:
    path = directory / SETTINGS_FILE
    if settings.defaults["negative_prompt"] and unet.config.time_cond_proj_dim:
        raise UserError(
            f"{path} has a default negative_prompt, but the UNet embeds guidance and has no branch "
            "that reads one; remove it."
        )
    schedule, kind = scheduler.schedule, scheduler.prediction_type
    check_defaults(path, settings.defaults, schedule, kind)
    check_sampling(path, settings.distilled, settings.defaults, schedule, kind)


def _read_classifiers(directory: Path) -> tuple[ClassifierSource, ...]:
    return tuple(map(read_classifier, sorted((directory / "classifiers").glob("*.onnx"))))


def _read_au_reader(directory: Path, settings: Settings) -> AUReaderSource | None:
    file = directory / AU_READER_FILE
    return read_au_reader(file, settings.au_names) if file.is_file() else None


def _guided(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its ONNX file that guides, if it has one."""
    file = checkpoint.directory / GUIDE
    if not file.is_file():
        return checkpoint
    if (file.parent / IMAGE_FOLDER).is_dir():
        raise UserError(
            f"{file.parent} holds both {IMAGE_FOLDER}/ and {GUIDE}, and one network guides; remove "
            "one of them."
        )
    guide = read_classifier(file)
    if guide.others:
        raise UserError(
            f"{file.with_suffix('.json')} describes several heads, and one guides; describe that "
            "one, with its output_name."
        )
    return checkpoint.guided_by(guide)


def _weight_files(
    folders: Sequence[Path],
    adapter: AUAdapter | None,
    loras: Sequence[Lora],
    classifiers: Sequence[ClassifierSource],
    au_reader: AUReaderSource | None,
) -> tuple[Path, ...]:
    """Every file of weights that the engines come from."""
    files = [file for folder in folders for file in weight_files(folder)]
    files += adapter.files if adapter else []
    files += [file for lora in loras for file in lora.files]
    files += [source.path for source in classifiers]
    files += [au_reader.path] if au_reader else []
    return tuple(files)


def _read_tokenizer(folder: Path) -> Any:
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # tokenizers raises plain Exception
        reason = first_line(error)
        raise UserError(f"{folder} holds no tokenizer ({reason}); fetch it again.") from error
    if not tokenizer.is_fast:
        raise UserError(f"{folder} holds no tokenizer that `tokenizers` can run; give a CLIP one.")
    return tokenizer
