"""Labels of existing images, and their calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from synfer_rt import ranges
from synfer_rt.api.session import Session
from synfer_rt.data.label_table import begun_with
from synfer_rt.jobs.aligning import aligner_of
from synfer_rt.jobs.calibrate import Calibrations, calibrate
from synfer_rt.jobs.calibration_file import calibrated_at, check_place
from synfer_rt.jobs.label import LabelJob, label_dataset
from synfer_rt.jobs.label_arguments import read_images, table_in
from synfer_rt.jobs.label_results import Labels
from synfer_rt.jobs.progress import OnProgress
from synfer_rt.jobs.reading_settings import DEFAULTS, ReadingSettings
from synfer_rt.jobs.resuming import as_begun, check_resuming, choose_computation
from synfer_rt.paths import Location, local
from synfer_rt.signatures import spelled_out


class Labelling(Session):
    """`Model.label` and `Model.calibrate`."""

    @spelled_out(ReadingSettings, DEFAULTS)
    def label(
        self,
        images: Location | Sequence[Location],
        *,
        out: Location | None = None,
        format: str = "auto",
        accept_rate: float | None = None,
        threshold: float | None = None,
        calibration: Location | None = None,
        coverage: float | None = None,
        batch: int = 64,
        resume: bool = False,
        mix_backends: bool = False,
        on_progress: OnProgress | None = None,
        **reading: Unpack[ReadingSettings],
    ) -> Labels:
        """Label images by the vote of the annotators; iterate over the result for each image.

        `images` are files, directories or a dataset. `format` is the dataset's format (see
        docs/labelling.md); "auto" recognises it. `label_scheme` says what label numbers mean, such
        as "raf-db", a list of names or a scheme file; `split` keeps train, val or test only.
        `align` finds the face in each image, and aligns it to where the bundle expects it (see
        docs/labelling.md); of several faces `face` takes the "largest", by default, the one nearest
        to the "centre", or "only" one, so that images of several are left out. `face_detector` is
        an ONNX file of YuNet, by default that of the extra `align`. `out` is a .jsonl or .csv file
        that is written, or a directory for labels.jsonl; by default nothing is written.
        `accept_rate` accepts the most confident part of each class, above 0, at most 1; `threshold`
        accepts from this confidence on, 0 to 1. By default a label of the dataset is accepted if
        the vote and most annotators see it. With `calibration`, a file of `calibrate`,
        probabilities are calibrated, and each image has a label set of `coverage`, 0 to 1, by
        default 0.9.

        `batch` images are labelled at a time. `resume` and `mix_backends` are as in `write`. Raises
        UserError for a bundle without annotators, images that cannot be used, a dataset of
        which no label is understood although `format` or `label_scheme` asks for labels, and as
        `write` does.
        """
        batch = ranges.whole("batch", batch, 1, None)
        check_resuming(resume, mix_backends)
        table = None if out is None else table_in(local(out, "out"))
        begun = begun_with(table) if resume and table is not None else None
        bundle = as_begun(self.bundle, begun)
        aligner = aligner_of(reading, bundle)
        dataset = read_images(images, table, format, reading, bundle.label_scheme)
        calibrated = calibrated_at(calibration, coverage, self.bundle)
        job = LabelJob(dataset, accept_rate, threshold, calibrated, aligner)
        backend = self.backend
        if table is not None:
            lacking = None if table.exists() else begun
            where, _ = choose_computation(self._backend, bundle, table, lacking, mix_backends)
            backend = where.backend
        engines = self._loaded(bundle, backend)
        return label_dataset(job, engines, table, batch, resume, on_progress)

    @spelled_out(ReadingSettings, DEFAULTS)
    def calibrate(
        self,
        data: Location | Sequence[Location],
        out: Location = "calibration.json",
        *,
        format: str = "auto",
        batch: int = 64,
        on_progress: OnProgress | None = None,
        **reading: Unpack[ReadingSettings],
    ) -> Calibrations:
        """Fit the annotators' temperatures and the thresholds of label sets on labelled images.

        `data` are read, and aligned, as the images of `label`, with their labels. The file `out`,
        in JSON, is for this bundle alone. Raises UserError for a bundle without annotators, for
        images without a label that the bundle knows, and for a file that is no calibration.
        """
        batch = ranges.whole("batch", batch, 1, None)
        file = local(out, "out")
        bundle = self.bundle
        check_place(file)
        dataset = read_images(data, file, format, reading, bundle.label_scheme, "data")
        aligner = aligner_of(reading, bundle)
        engines = self._loaded(bundle, self.backend)
        return calibrate(dataset, engines, file, batch, on_progress, aligner)
