"""`train_annotator` and `train_guide`: what the commands do, with plain arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from synfer_rt import ranges
from synfer_rt.bundle.files import MANIFEST
from synfer_rt.data.datasets import read_datasets
from synfer_rt.data.writers.run_file import folder
from synfer_rt.errors import UserError, nearest
from synfer_rt.export.build.log import to_stderr
from synfer_rt.export.checkpoint.contents import FERANNO_FOLDER, Checkpoint
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.lora.merge import Lora, parse_lora
from synfer_rt.export.networks.guiding_classifier import IMAGE_FOLDER, LATENT_FOLDER
from synfer_rt.export.training import annotator, guide, state
from synfer_rt.export.training.annotator import AnnotatorSettings
from synfer_rt.export.training.evaluation import Evaluation
from synfer_rt.export.training.faces import HELD_OUT, Faces, read_faces
from synfer_rt.export.training.frozen import device_of
from synfer_rt.export.training.guide import GuideSettings
from synfer_rt.export.training.stages import Stage, silent
from synfer_rt.export.training.state import Place
from synfer_rt.jobs.aligning import aligner_to, warn_of_faces_elsewhere
from synfer_rt.paths import Location, local
from synfer_rt.vocabulary import label_schemes
from synfer_rt.vocabulary.scheme_files import given_scheme

_FOLDERS = {"latent": LATENT_FOLDER, "image": IMAGE_FOLDER}
_HEADS = 4
"""The heads of FERAnno's attention, among which its width is divided."""


@dataclass(frozen=True)
class Material:
    """What a network is trained from; the fields are the arguments of `train_annotator`."""

    checkpoint: Path
    data: tuple[Path, ...]
    au_adapter: Path | None
    lora: tuple[Lora, ...]
    classes: str | None
    format: str
    label_scheme: str | None
    split: str | None
    held_out: str
    align: bool
    face: str | None
    face_detector: Location | None

    def __post_init__(self) -> None:
        if (self.checkpoint / MANIFEST).is_file():
            raise UserError(
                f"{self.checkpoint} is a bundle; write its checkpoint with `synfer-rt unpack "
                f"{self.checkpoint} --out DIR`, and give DIR."
            )
        if not self.data:
            raise UserError("`data` must name a dataset.")
        if self.held_out not in HELD_OUT:
            raise UserError(
                f"`held_out` must be one of {', '.join(HELD_OUT)}, got {self.held_out!r}; the "
                f"nearest is {nearest(str(self.held_out), HELD_OUT)}."
            )
        if self.split is not None and self.held_out in ("val", "test"):
            raise UserError(
                f"`split` keeps one part of the dataset, so no other can be held out; leave out "
                f"`split` or `held_out={self.held_out!r}`."
            )
        if self.classes is not None:
            _check_classes(given_scheme(self.classes, "classes").text)

    def read(self, work: Path, stage: Stage) -> tuple[Checkpoint, Faces]:
        """The checkpoint and the labelled faces. Raises UserError for what cannot be used."""
        checkpoint = read_checkpoint(self.checkpoint, self.au_adapter, loras=self.lora)
        scheme = checkpoint.settings.label_scheme
        if self.classes is not None:
            scheme = given_scheme(self.classes, "classes").text
        _check_classes(scheme)
        template, size = checkpoint.face_template, checkpoint.image_size
        aligner = aligner_to(template, self.align, self.face, self.face_detector)
        dataset = read_datasets(self.data, self.format, self.label_scheme, self.split, scheme)
        if aligner is None and checkpoint.settings.face_template is not None:
            warn_of_faces_elsewhere(dataset.items, checkpoint.settings.name, size, template)
        return checkpoint, read_faces(
            dataset, scheme, size, work, stage, self.held_out, self.split is not None, aligner
        )


def _check_classes(scheme: str) -> None:
    for name in label_schemes.scheme(scheme):
        if not label_schemes.is_expression(name):
            raise UserError(
                f"`classes` {scheme} has the place {name!r}, which is no class; list the "
                'classes alone, such as `classes="neutral,happy,sad"`.'
            )


def train_annotator(
    checkpoint: str | Path,
    data: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    work: str | Path | None = None,
    au_adapter: str | Path | None = None,
    lora: Sequence[str | Path | Lora] = (),
    classes: str | None = None,
    format: str = "auto",
    label_scheme: str | None = None,
    split: str | None = None,
    held_out: str = "auto",
    align: bool = False,
    face: str | None = None,
    face_detector: Location | None = None,
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
) -> Evaluation:
    """Train FERAnno's head for `checkpoint` on the labelled images of `data`; write it to `out`.

    The arguments are the options of `synfer-rt train-annotator` (docs/training.md); `out` is
    `checkpoint`/annotator by default, where `build_engines` finds it. `stage` shows how far it is
    (see stages.py), and `remark` is called with each sentence. The same call goes on with a
    training that was stopped. Raises UserError for input that cannot be used and a full disk;
    what is finished is kept.
    """
    material = _material(
        *(checkpoint, data, au_adapter, lora, classes, format, label_scheme, split, held_out),
        *(align, face, face_detector),
    )
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
    model, faces = _read(material, place, stage, remark)
    return annotator.train(model, faces, settings, place, found, stage, remark)


def train_guide(
    checkpoint: str | Path,
    data: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    work: str | Path | None = None,
    space: guide.Space = "latent",
    au_adapter: str | Path | None = None,
    lora: Sequence[str | Path | Lora] = (),
    classes: str | None = None,
    format: str = "auto",
    label_scheme: str | None = None,
    split: str | None = None,
    held_out: str = "auto",
    align: bool = False,
    face: str | None = None,
    face_detector: Location | None = None,
    images: int | None = None,
    epochs: int = 4,
    batch: int = 64,
    rate: float = 2e-3,
    seed: int = 0,
    device: str = "auto",
    stage: Stage = silent,
    remark: Callable[[str], None] = to_stderr,
) -> Evaluation:
    """Train a classifier that guides `checkpoint` on the labelled images of `data`.

    The arguments are the options of `synfer-rt train-guide`; `out` is by default the folder
    latent_classifier of `checkpoint`, or image_classifier for the `space` "image". All else is as
    in `train_annotator`.
    """
    material = _material(
        *(checkpoint, data, au_adapter, lora, classes, format, label_scheme, split, held_out),
        *(align, face, face_detector),
    )
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
    model, faces = _read(material, place, stage, remark)
    return guide.train(model, faces, settings, place, found, stage, remark)


def _material(
    checkpoint: str | Path,
    data: str | Path | Sequence[str | Path],
    au_adapter: str | Path | None,
    lora: Sequence[str | Path | Lora],
    classes: str | None,
    format: str,
    label_scheme: str | None,
    split: str | None,
    held_out: str,
    align: bool,
    face: str | None,
    face_detector: Location | None,
) -> Material:
    paths = [data] if isinstance(data, str | Path) else data
    return Material(
        local(checkpoint),
        tuple(map(local, paths)),
        None if au_adapter is None else local(au_adapter),
        tuple(one if isinstance(one, Lora) else parse_lora(one) for one in lora),
        classes,
        format,
        label_scheme,
        split,
        held_out,
        align,
        face,
        face_detector,
    )


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


def _read(
    material: Material,
    place: Place,
    stage: Stage,
    remark: Callable[[str], None],
) -> tuple[Checkpoint, Faces]:
    checkpoint, faces = material.read(place.work, stage)
    for said in (*checkpoint.remarks, *faces.remarks):
        remark(said)
    remark(
        f"{len(faces.train)} images to train on, {len(faces.held)} held out (by {faces.by}), "
        f"classes {', '.join(label_schemes.scheme(faces.scheme))}"
    )
    return checkpoint, faces
