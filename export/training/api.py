"""`train_annotator` and `train_guide`: what the commands do, with plain arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Unpack

from synfer_rt import ranges
from synfer_rt.data.writers.run_file import folder
from synfer_rt.errors import UserError
from synfer_rt.export.build.log import to_stderr
from synfer_rt.export.checkpoint.contents import FERANNO_FOLDER
from synfer_rt.export.networks.guiding_classifier import IMAGE_FOLDER, LATENT_FOLDER
from synfer_rt.export.training import annotator, guide, state
from synfer_rt.export.training.annotator import AnnotatorSettings
from synfer_rt.export.training.evaluation import Evaluation
from synfer_rt.export.training.frozen import device_of
from synfer_rt.export.training.guide import GuideSettings
from synfer_rt.export.training.material import DEFAULTS, MaterialSettings, material_of
from synfer_rt.export.training.stages import Stage, silent
from synfer_rt.export.training.state import Place
from synfer_rt.paths import local
from synfer_rt.signatures import spelled_out

_FOLDERS = {"latent": LATENT_FOLDER, "image": IMAGE_FOLDER}
_HEADS = 4
"""The heads of FERAnno's attention, among which its width is divided."""


@spelled_out(MaterialSettings, DEFAULTS)
def train_annotator(
    checkpoint: str | Path,
    data: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    work: str | Path | None = None,
    images: int | None = None,
    views: int = 2,
    epochs: int = 8,
    batch: int = 64,
    rate: float = 1.5e-3,
    width: int = 64,
    seed: int = 0,
    temperature: bool = True,
    start: str | Path | None = None,
    device: str = "auto",
    stage: Stage = silent,
    remark: Callable[[str], None] = to_stderr,
    **given: Unpack[MaterialSettings],
) -> Evaluation:
    """Train FERAnno's head for `checkpoint` on the labelled images of `data`; write it to `out`.

    The arguments are the options of `synfer-rt train-annotator` (docs/training.md); `out` is
    `checkpoint`/annotator by default, where `build_engines` finds it. `stage` shows how far it is
    (see stages.py), and `remark` is called with each sentence. The same call goes on with a
    training that was stopped. Raises UserError for input that cannot be used and a full disk;
    what is finished is kept.
    """
    material = material_of(checkpoint, data, given)
    if ranges.whole("width", width, _HEADS, None) % _HEADS:
        raise UserError(f"`width` must be a multiple of {_HEADS}, got {width}.")
    settings = AnnotatorSettings(
        epochs=ranges.whole("epochs", epochs, 1, None),
        views=ranges.whole("views", views, 1, None),
        images=None if images is None else ranges.whole("images", images, 1, None),
        batch=ranges.whole("batch", batch, 1, None),
        rate=_rate(rate),
        width=int(width),
        seed=ranges.whole("seed", seed),
        temperature=ranges.flag("temperature", temperature),
        start=None if start is None else _head(local(start)),
    )
    place = _place(material.checkpoint / FERANNO_FOLDER if out is None else local(out), work)
    found = device_of(device)
    model, faces = material.read(place.work, stage, remark)
    return annotator.train(model, faces, settings, place, found, stage, remark)


@spelled_out(MaterialSettings, DEFAULTS)
def train_guide(
    checkpoint: str | Path,
    data: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    work: str | Path | None = None,
    space: guide.Space = "latent",
    images: int | None = None,
    epochs: int = 4,
    batch: int = 64,
    rate: float = 2e-3,
    seed: int = 0,
    device: str = "auto",
    stage: Stage = silent,
    remark: Callable[[str], None] = to_stderr,
    **given: Unpack[MaterialSettings],
) -> Evaluation:
    """Train a classifier that guides `checkpoint` on the labelled images of `data`.

    The arguments are the options of `synfer-rt train-guide`; `out` is by default the folder
    latent_classifier of `checkpoint`, or image_classifier for the `space` "image". All else is as
    in `train_annotator`.
    """
    material = material_of(checkpoint, data, given)
    if space not in _FOLDERS:
        raise UserError(f"`space` must be latent or image, got {space!r}.")
    settings = GuideSettings(
        space=space,
        epochs=ranges.whole("epochs", epochs, 1, None),
        images=None if images is None else ranges.whole("images", images, 1, None),
        batch=ranges.whole("batch", batch, 1, None),
        rate=_rate(rate),
        seed=ranges.whole("seed", seed),
    )
    place = _place(material.checkpoint / _FOLDERS[space] if out is None else local(out), work)
    found = device_of(device)
    model, faces = material.read(place.work, stage, remark)
    return guide.train(model, faces, settings, place, found, stage, remark)


def _head(folder: Path) -> Path:
    if not (folder / annotator.WEIGHTS).is_file():
        raise UserError(
            f"`start` {folder} has no {annotator.WEIGHTS}; name the folder of a trained FERAnno."
        )
    return folder


def _rate(value: float) -> float:
    if not ranges.is_real(value, 0, 1) or value == 0:
        raise UserError(f"`rate` must be above 0 and at most 1, got {ranges.shown(value)}.")
    return float(value)


def _place(out: Path, work: str | Path | None) -> Place:
    """Where the files are. Raises UserError for an `out` that holds anything of another origin."""
    own = folder(out)
    if not state.is_begun(own) and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise UserError(
            f"{out} holds something that this training did not write; choose another `out`, or "
            "move that away."
        )
    return Place(out, own, own if work is None else local(work))
