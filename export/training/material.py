"""What a network is trained from: a checkpoint, and the labelled faces of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from synfer_rt.bundle.files import MANIFEST
from synfer_rt.data.datasets import read_datasets
from synfer_rt.errors import UserError, nearest
from synfer_rt.export.build.log import to_stderr
from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.lora.merge import Lora, parse_lora
from synfer_rt.export.training.faces import HELD_OUT, Faces, read_faces
from synfer_rt.export.training.stages import Stage
from synfer_rt.jobs.aligning import aligner_to, warn_of_faces_elsewhere
from synfer_rt.jobs.reading_settings import ReadingSettings
from synfer_rt.paths import local
from synfer_rt.vocabulary import label_schemes
from synfer_rt.vocabulary.scheme_files import given_scheme


class MaterialSettings(ReadingSettings, total=False):
    """The arguments that `train_annotator` and `train_guide` share (docs/training.md).

    Leave one out, or give None, for its default.
    """

    au_adapter: str | Path | None
    lora: Sequence[str | Path | Lora] | None
    classes: str | None
    format: str | None
    held_out: str | None


@dataclass(frozen=True)
class Material:
    """What `checkpoint` is trained on: the images of `data`, read by MaterialSettings.

    Raises UserError for settings that do not fit.
    """

    checkpoint: Path
    data: tuple[Path, ...]
    au_adapter: str | Path | None = None
    lora: Sequence[str | Path | Lora] = ()
    classes: str | None = None
    format: str = "auto"
    label_scheme: str | Sequence[str] | Path | None = None
    split: str | None = None
    held_out: str = "auto"
    align: bool = False
    face: str | None = None
    face_detector: str | Path | None = None

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

    def read(
        self, work: Path, stage: Stage, remark: Callable[[str], None] = to_stderr
    ) -> tuple[Checkpoint, Faces]:
        """The checkpoint and the labelled faces; `remark` is called with what is to be known.

        Raises UserError for what cannot be used.
        """
        adapter = None if self.au_adapter is None else local(self.au_adapter)
        loras = [one if isinstance(one, Lora) else parse_lora(one) for one in self.lora]
        checkpoint = read_checkpoint(self.checkpoint, adapter, loras=loras)
        faces = self._faces(checkpoint, work, stage)
        for said in (*checkpoint.remarks, *faces.remarks):
            remark(said)
        remark(
            f"{len(faces.train)} images to train on, {len(faces.held)} held out (by {faces.by}), "
            f"classes {', '.join(label_schemes.scheme(faces.scheme))}"
        )
        return checkpoint, faces

    def _faces(self, checkpoint: Checkpoint, work: Path, stage: Stage) -> Faces:
        scheme = checkpoint.settings.label_scheme
        if self.classes is not None:
            scheme = given_scheme(self.classes, "classes").text
        _check_classes(scheme)
        template, size = checkpoint.face_template, checkpoint.image_size
        aligner = aligner_to(template, self.align, self.face, self.face_detector)
        dataset = read_datasets(self.data, self.format, self.label_scheme, self.split, scheme)
        if aligner is None and checkpoint.settings.face_template is not None:
            warn_of_faces_elsewhere(dataset.items, checkpoint.settings.name, size, template)
        one_split = self.split is not None
        return read_faces(dataset, scheme, size, work, stage, self.held_out, one_split, aligner)


DEFAULTS = {one.name: one.default for one in fields(Material) if one.default is not MISSING}
"""The defaults of MaterialSettings."""


def material_of(
    checkpoint: str | Path, data: str | Path | Sequence[str | Path], given: MaterialSettings
) -> Material:
    """The material that the arguments of a training describe. Raises UserError as Material does."""
    paths = [data] if isinstance(data, str | Path) else data
    settings: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    return Material(local(checkpoint), tuple(map(local, paths)), **settings)


def _check_classes(scheme: str) -> None:
    for name in label_schemes.scheme(scheme):
        if not label_schemes.is_expression(name):
            raise UserError(
                f"`classes` {scheme} has the place {name!r}, which is no class; list the "
                'classes alone, such as `classes="neutral,happy,sad"`.'
            )
