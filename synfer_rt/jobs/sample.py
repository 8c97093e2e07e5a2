"""From a run's settings to its samples, in memory or in a dataset.

Beside the engines the next piece is prepared, and those before are labelled, encoded and written.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from synfer_rt import ranges
from synfer_rt.backends import default_threads
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.backends.placement import described
from synfer_rt.data import notebook, writers
from synfer_rt.data.card_files import place as card_place
from synfer_rt.data.contact_sheet import FILE as SHEET
from synfer_rt.data.contact_sheet import picture_of, write_contact_sheet
from synfer_rt.data.image_format import ImageFormat
from synfer_rt.data.writers import Writer, run_file
from synfer_rt.data.writers.shards import PartWriter
from synfer_rt.jobs import runner
from synfer_rt.jobs.aligning import warn_of_unaligned
from synfer_rt.jobs.card.card import tally_of, write_card
from synfer_rt.jobs.destination import Destination
from synfer_rt.jobs.known_faces import keep_faces
from synfer_rt.jobs.other_parts import PATIENCE, OtherParts
from synfer_rt.jobs.pieces import Pieces, RunObserver
from synfer_rt.jobs.progress import OnProgress, reporter
from synfer_rt.jobs.resuming import resumable
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.selection import Selection
from synfer_rt.jobs.skipped import skipped_file, write_skipped
from synfer_rt.jobs.soundness import Soundness
from synfer_rt.jobs.warnings import warn_of_other_images, warn_of_the_cpu
from synfer_rt.judging.quotas import missing
from synfer_rt.sampling.inversion import DISTORTED, PhotoStarts
from synfer_rt.sampling.observer import StageTimes
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.sampling.samples import Sample, Samples

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What one call of `execute` made.

    `labelled` and `accepted` count samples by their label; all requested labels are among them.
    `accepted` is empty after a part of a run where the samples before decide what is accepted.
    `retried` counts the samples that came out broken and were made again, `broken` those that are
    broken in the end. `missing` is how many accepted samples each class lacks of those wanted,
    after the last image of the run; for a run in parts `write_samples` finds it. `ran_on` says on
    what the engines really ran: backends, and the nodes of ONNX Runtime's graphs by execution
    provider. `quality` is that of the run.
    """

    images: int
    seconds: float
    labelled: Mapping[str, int]
    accepted: Mapping[str, int]
    missing: Mapping[str, int]
    retried: int
    broken: int
    times: StageTimes
    ran_on: str
    quality: str

    @property
    def images_per_second(self) -> float:
        """Images made per second of the whole run."""
        return self.images / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Written:
    """The dataset in `path` after `write`: `count` images, of which `summary` made its part now.

    In an object store paths are addresses, as texts.

    `contact_sheet` is an HTML page with the first images of each class. `skipped` are the files of
    `layout_from` that cannot be read, with the reasons, which `skipped_file` lists too.

    `missing` are the shards that other parts have not made yet. While there are any, `count` are
    the images of this part, and there is no contact sheet.
    """

    path: Path | str
    count: int
    contact_sheet: Path | str | None
    summary: Summary
    skipped: tuple[tuple[str, str], ...]
    skipped_file: Path | str
    missing: int = 0

    def __repr__(self) -> str:
        now, accepted = self.summary.images, sum(self.summary.accepted.values())
        return f"Written({str(self.path)!r}, {self.count} images; now {now}, accepted {accepted})"

    def _repr_html_(self) -> str:
        made = self.summary
        rows = [(label, n, made.accepted.get(label, 0)) for label, n in made.labelled.items()]
        said = f"{self.count} images in {self.path}; {made.images} of them now"
        table = notebook.table(("label", "images", "accepted"), rows, said)
        return table + picture_of(self.contact_sheet)


class _Tally:
    """Counts the samples of a run."""

    def __init__(self, run: Run, engines: LoadedEngines) -> None:
        self._backend = engines.backend
        self.labelled = Counter(dict.fromkeys(run.requests.labels, 0))
        self.accepted = self.labelled.copy()
        self.retried = self.broken = 0

    def count(self, samples: Sequence[Sample]) -> None:
        """Count further samples."""
        self.labelled.update([sample.label for sample in samples])
        self.accepted.update([sample.label for sample in samples if sample.accepted])
        self.retried += sum([sample.backend != self._backend for sample in samples])
        self.broken += sum([sample.broken for sample in samples])


@dataclass(frozen=True)
class _Encoded:
    """A piece whose files are being encoded."""

    samples: list[Sample]
    files: list[Future[list[bytes]]]


class _Encoders:
    """So many threads that encode images in `format`; a context manager."""

    def __init__(self, count: int, format: ImageFormat) -> None:
        self._count, self._format = count, format
        self._threads = ThreadPoolExecutor(count, "encode")

    def __enter__(self) -> _Encoders:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    def encode(self, samples: list[Sample]) -> _Encoded:
        """Begin to encode the samples' images, in equal parts."""
        images = [sample.image for sample in samples]
        share = -(-len(images) // self._count)
        parts = (images[first : first + share] for first in range(0, len(images), share))
        encode = self._format.encode
        return _Encoded(samples, [self._threads.submit(encode, part) for part in parts])


def execute(
    run: Run,
    engines: LoadedEngines,
    writer: Writer,
    batch: int,
    on_progress: Callable[[float], None] = lambda images: None,
    patience: float = PATIENCE,
    starts: PhotoStarts | None = None,
) -> Summary:
    """Make the samples that `writer` does not have yet, `batch` at a time, and finish the output.

    A piece of a batch (`Sampler.at_once`) is labelled, encoded and written while the engines
    compute the next, and the one after it is prepared.
    `on_progress` is told how many images of the run are made, counting a piece by its steps.
    `patience` are the seconds for which a part with quotas waits for others (`OtherParts`).
    `starts` are the `photo_starts` of the run, if the caller has them. See `runner.run` for
    interruptions and errors.
    """
    batch = ranges.whole("batch", batch, 1, None)
    if writer.lacking:
        engines.load(run.engines, images_at_once(run, engines, batch))  # no part of the run's time
        starts = photo_starts(run, engines) if starts is None else starts
    others = OtherParts(writer, patience) if isinstance(writer, PartWriter) else None
    selection = Selection(run, writer.records(), writer.deferred, others)
    started = time.perf_counter()
    tally = _Tally(run, engines)
    indices = selection.indices(writer.lacking)
    before = writer.done if indices is writer.lacking else indices[0]
    observer = RunObserver(lambda images: on_progress(before + images), Soundness(engines))

    def write(piece: Future[_Encoded]) -> None:
        samples, files = piece.result().samples, piece.result().files
        images = [file for part in files for file in part.result()]
        writer.write([run.record(sample) for sample in samples], images)

    with _Encoders(default_threads(), writer.image_format) as encoders:

        def finish(samples: list[Sample]) -> _Encoded:
            tally.count(samples)
            return encoders.encode(samples)

        pieces = Pieces(run, engines, selection, indices, batch, observer, starts, finish).make()
        waiting = partial(observer.stage, "write")
        runner.run(run.bundle, pieces, write, writer, lambda piece: None, waiting)
    observer.times.end(seconds := time.perf_counter() - started)
    return Summary(
        tally.labelled.total(),
        seconds,
        tally.labelled,
        {} if writer.deferred else tally.accepted,
        {} if selection.quotas is None or others is not None else selection.quotas.missing(),
        tally.retried,
        tally.broken,
        observer.times,
        described(engines.placements().values()),
        run.quality,
    )


def make_samples(
    run: Run, engines: LoadedEngines, batch: int, on_progress: OnProgress | None = None
) -> Samples:
    """The samples of the run in the order of their indices, made `batch` at a time.

    Raises UserError as the sampler does, and when the files of the bundle have changed.
    """
    batch = ranges.whole("batch", batch, 1, None)
    run.warn()
    starts = photo_starts(run, engines)
    report = reporter(on_progress, 0, run.count, run.quota is not None)
    return Samples(samples_at(range(run.count), run, engines, batch, starts, report))


def samples_at(
    indices: Sequence[int],
    run: Run,
    engines: LoadedEngines,
    batch: int,
    starts: PhotoStarts | None,
    report: Callable[[float], None] = lambda images: None,
) -> list[Sample]:
    """The samples of these rising indices of the run; `starts` are its `photo_starts`.

    All indices, unless no sample depends on those before it (`Run.in_order`). Raises UserError as
    `make_samples` does.
    """
    observer = RunObserver(report, Soundness(engines))
    selection = Selection(run, [])
    samples: list[Sample] = []
    pieces = Pieces(run, engines, selection, indices, batch, observer, starts, samples.extend)
    for piece in pieces.make():
        run.bundle.check_unchanged()
        piece.result()
    return samples


def write_samples(
    run: Run,
    engines: LoadedEngines,
    to: Destination,
    batch: int,
    on_progress: OnProgress | None = None,
) -> Written:
    """Write the samples of the run that the output lacks, and its contact sheet.

    Raises UserError as `execute` and `Destination.open` do. If nothing was written, nothing is left
    in the output.
    """
    skipped = () if run.photos is None else tuple(run.photos.skipped.items())
    run.warn()
    if to.begun is None:
        rows = images_at_once(run, engines, batch)
        engines.load(run.engines, rows)  # what does not load leaves nothing behind
        warn_of_the_cpu(engines)
    writer = to.open(to.settings_of(run), engines)
    count = run.count if to.part is None else writer.count
    if writer.done and writer.lacking:
        LOG.info(f"Resuming: {writer.done} of {count} images are there.")
    if run.photos is not None:
        write_skipped(to.out, skipped)
        keep_faces(to.out, run.photos.aligner)
    try:
        with resumable(lambda: f"{writer.done} of {count} images written"):
            report = reporter(on_progress, writer.done, count, run.quota is not None)
            summary = execute(run, engines, writer, batch, report, to.patience)
    finally:
        if not writer.done and to.part is None:
            writers.discard_empty(to.out)
    if writer.missing:
        files = skipped, skipped_file(to.out), writer.missing
        return Written(to.out, writer.done, None, summary, *files)
    sheet, summary = _finished(run, to, summary)
    images = writer.done if to.part is None else run_file.count(run_file.load(to.out))
    return Written(to.out, images, sheet, summary, skipped, skipped_file(to.out))


def _finished(run: Run, to: Destination, summary: Summary) -> tuple[Path, Summary]:
    """The contact sheet of a finished run, which gets its card too, and what the run lacks."""
    sheet = run_file.folder(to.out) / SHEET
    if summary.images or not sheet.exists():
        sheet = write_contact_sheet(to.out, run.requests.labels)
    counts, quotas = None, run.quotas()
    if quotas is not None:  # a part does not know what others made
        counts = tally_of(to.out)
        summary = replace(summary, missing=missing(counts.accepted, quotas.quota))
    if summary.images or not card_place(to.out, to.format).exists():
        write_card(to.out, counts)
    return sheet, summary


def images_at_once(run: Run, engines: LoadedEngines, batch: int) -> int:
    """How many of the run's images go through the engines at once."""
    return Sampler(engines).at_once(min(batch, run.count), run.semantic)


def photo_starts(run: Run, engines: LoadedEngines) -> PhotoStarts | None:
    """Where samples begin that show the faces of the run's photos; None for a run without photos.

    Logs how well photos come back, and warns if the model distorts them.
    """
    if run.photos is None:
        return None
    warn_of_other_images(run.bundle)
    if run.photos.aligner is None:
        warn_of_unaligned(run.photos.as_items(), run.bundle)
    requests, photos = run.requests, run.photos
    starts = PhotoStarts(
        Sampler(engines),
        photos,
        run.trajectory,
        run.inversion,
        come_back=run.count > len(photos) * requests.showings,
        reads_aus=requests.facts is not None and requests.facts.read_aus,
    )
    there, alone = starts.round_trip()
    LOG.info(
        f"{len(run.photos)} photos to start from; inverted and denoised, the first come back at "
        f"{there:.1f} dB (through the VAE alone: {alone:.1f} dB)"
    )
    if alone < DISTORTED:
        LOG.warning(
            f"{run.bundle.name} gives such photos back distorted, and will distort these faces "
            "too; use a bundle whose model was trained on photos."
        )
    return starts
