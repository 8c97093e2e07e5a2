"""synfer-rt from Python: a model, and what it does.

    import synfer_rt

    model = synfer_rt.load()
    samples = model.sample(labels=["happy"], aus={"AU12": 0.8}, count=8)
    model.write("out", count=1000, format="webdataset")
    labels = model.label("photos")
    model.augment("data", "balanced")

The commands of `synfer-rt` call these functions, whose arguments have the names of the options.
Bad input raises `synfer_rt.UserError`, which says what is wrong and what to do. Warnings
and remarks go to the logger `synfer_rt.jobs`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack, cast

from synfer_rt import ranges
from synfer_rt.backends import choose, parity
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle, EngineSpec, open_bundle
from synfer_rt.data.datasets import read_dataset, refuse_inside
from synfer_rt.data.image_format import image_format as chosen_format
from synfer_rt.data.label_table import begun_with
from synfer_rt.data.storage.addresses import Address, address_of
from synfer_rt.data.writers import SHARD_SIZE, check_output
from synfer_rt.data.writers.shards import Part, part_of
from synfer_rt.data.writers.working_copy import check_storable, opened
from synfer_rt.errors import UserError
from synfer_rt.jobs.aligning import aligner_for
from synfer_rt.jobs.augment import Augmenter
from synfer_rt.jobs.augment_dataset import Augmented, augment_dataset
from synfer_rt.jobs.augmentation import Augmentation
from synfer_rt.jobs.balance import Balance, additions, targets
from synfer_rt.jobs.calibrate import Calibrations, calibrate
from synfer_rt.jobs.calibration_file import calibrated_at
from synfer_rt.jobs.destination import Destination
from synfer_rt.jobs.diagnosis import Diagnosis, diagnose
from synfer_rt.jobs.label import LabelJob, label_dataset
from synfer_rt.jobs.label_arguments import read_images, table_in
from synfer_rt.jobs.label_results import Labels
from synfer_rt.jobs.originals import usable
from synfer_rt.jobs.other_parts import PATIENCE
from synfer_rt.jobs.plan_preview import Preview, preview
from synfer_rt.jobs.plan_preview import measure as measure_run
from synfer_rt.jobs.plan_reading import read_plan
from synfer_rt.jobs.progress import OnProgress
from synfer_rt.jobs.rerun import backend_for
from synfer_rt.jobs.resuming import (
    as_begun,
    check_resuming,
    choose_computation,
    settings_as_begun,
)
from synfer_rt.jobs.sample import Written, make_samples, write_samples
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.sample_settings import SampleSettings, make_run
from synfer_rt.outputs import Evaluation as Evaluation
from synfer_rt.outputs import Verification as Verification
from synfer_rt.outputs import evaluate as evaluate
from synfer_rt.outputs import finish as finish
from synfer_rt.outputs import status as status
from synfer_rt.outputs import verify as verify
from synfer_rt.outputs import write_report as write_report
from synfer_rt.paths import Location, local
from synfer_rt.ray.cluster import check_address
from synfer_rt.ray.run import write_on_ray
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.sampling.samples import Samples

LOG = logging.getLogger("synfer_rt.jobs")
MOST_THREADS = 1024


def load(
    bundle: Location | None = None, *, backend: str = "auto", threads: int | None = None
) -> Model:
    """The model in the directory `bundle`, by default the one that is installed with synfer-rt.

    `backend` is a name that `doctor` lists, or "auto" for the best that works here. `threads` is
    the number of CPU threads of the engines, 1 to 1024, by default all cores. Raises UserError for
    a directory that holds no sound bundle, and a number of threads outside that range.

    Engines are loaded when they are first needed. The call that needs them raises UserError for a
    backend that is unknown or does not work here.
    """
    if threads is not None:
        threads = ranges.whole("threads", threads, 1, MOST_THREADS)
    return Model(open_bundle(bundle), backend, threads)


class Model:
    """A bundle's model on a backend; `load` makes it.

    `bundle` describes the model: its `classes`, `au_names`, `image_size`, `defaults` and engines.
    """

    def __init__(self, bundle: Bundle, backend: str, threads: int | None) -> None:
        self.bundle = bundle
        self._backend, self._threads = backend, threads
        self._engines: LoadedEngines | None = None

    def __repr__(self) -> str:
        height, width = self.bundle.image_size
        return (
            f"Model({self.bundle.name} {self.bundle.version}, {height}x{width} pixels, "
            f"{len(self.bundle.classes)} classes, backend={self._backend!r})"
        )

    @property
    def backend(self) -> str:
        """The name of the backend that the model runs on. Raises UserError if it does not work."""
        return choose(self._backend, self.bundle)[0]

    def sample(
        self,
        *,
        count: int = 8,
        batch: int = 256,
        on_progress: OnProgress | None = None,
        **settings: Unpack[SampleSettings],
    ) -> Samples:
        """Make samples in memory: `image` uint8 [H, W, 3], `label`, `probabilities`, `accepted`, …

        The result is a list, which a notebook shows as pictures.

        `count` images are made, `batch` at a time, which changes no image. The same seed and
        settings make the same images as `write`. The settings; None means the bundle's default:

        - `labels`: expressions, which take turns: "all", or a list such as ["happy", "sad"].
        - `prompt`: one prompt for all images; by default a sentence is drawn for each.
          `negative_prompt`: what the images should not show.
        - `aus`: intensities of action units, 0 to 1: {"AU12": 0.8}; by default drawn for each
          label. `au_scale`: their strength, -1000 to 1000.
        - `quality`: "fast" takes few steps of the bundle's distilled denoiser, "best" follows every
          setting. By default it is the bundle's, and "best" for settings that "fast" cannot follow.
        - `steps`, 1 or more, and `solver`: ddim, euler, dpmpp-2m, dpmpp-3m or unipc, or, with
          fresh noise in each step, euler-ancestral, dpmpp-sde, lcm or tcd. `timesteps`: those
          that the solver visits, such as [999, 749, 499, 249], instead of `steps`. `eta`: the
          share of fresh noise of tcd, 0 to 1, by default 0.3.
        - `guidance`: the scale of classifier-free guidance, 0 to 1000; 1 or less is none.
          `guidance_interval`: (low, high), the noise levels in which it acts; by default in all.
        - `layout`: "bank" starts from a neutral face of the bundle, "none" from noise.
          `layout_strength`: how much of a start face is made anew, above 0, at most 1.
        - `layout_from`: starts from photos, in a directory, a file or any dataset that `label`
          reads (`input_format`, `label_scheme`, `split`); each shows every label, or with
          `keep_label` its own, with its caption as the prompt. `aus_from`: "photo", "reader" or
          "prototype". `inversion`: "predictor-corrector", or "fixed-point" as in release 0.1.
          `align`, `face` and `face_detector`: find and align the photos' faces, as in `label`.
        - `cache_every`: N computes the UNet's deep part only in every N-th guided step, for a
          bundle that was built with `--cache-depth`; 1, the default, in every step.
        - `size`: (height, width) in pixels, for a bundle of free sizes.
        - `semantic_guidance`: how far a classifier's gradient moves an image at each step, 0 or
          more. `semantic_form`: latent, text-latent or text. `semantic_start`: the part of the
          steps before guidance begins, from 0 to below 1. `semantic_every`: 1 guides every step
          from there on, N every N-th.
        - `seed`: 0 to 2^63 - 1.
        - `count_accepted`: make images until each class has `count` accepted ones, or `budget`
          images are made, by default 10 times those wanted.
        - `accept_rate`: accept the most confident part of each class, above 0, at most 1.
          `threshold`: accept from this confidence on, 0 to 1. By default an image is accepted if
          the vote and most annotators see the requested label.
        - `calibration`: a file of `calibrate`; probabilities are then calibrated, and each sample
          has a label set of `coverage`, 0 to 1, by default 0.9.

        `on_progress` is called after each step. Raises UserError for a value that does not fit.
        """
        run = make_run(self.bundle, count=count, **settings)
        return make_samples(run, self._loaded(run.bundle, self.backend), batch, on_progress)

    def write(
        self,
        out: Location = "synfer-out",
        *,
        count: int = 256,
        format: str = "imagefolder",
        shard_size: int = SHARD_SIZE,
        image_format: str = "png",
        image_quality: int | None = None,
        part: tuple[int, int] | None = None,
        wait: float = PATIENCE,
        ray: str | None = None,
        batch: int = 256,
        resume: bool = False,
        mix_backends: bool = False,
        on_progress: OnProgress | None = None,
        **settings: Unpack[SampleSettings],
    ) -> Written:
        """Write samples as a labelled dataset into the directory `out`, which is new or empty.

        `out` may also be an address in an object store, such as s3://bucket/faces (see
        docs/object_storage.md).

        `format` is imagefolder, webdataset or parquet; a file of the latter two is a shard of
        `shard_size` images. `image_format` is png, or jpeg or webp in `image_quality`, 1 to 100, by
        default 95; images are labelled before they are compressed. `settings` and `batch` are those
        of `sample`. With `resume` a run that was interrupted continues, on the backend that it was
        begun on; with `mix_backends` it may continue on another, or on another version, where the
        same samples come out slightly different.

        With `part` (K, N) only the shards are made whose number is K modulo N, and not those that
        are there. Processes on any number of machines may make the parts of one run in one
        directory, in any order or at once; the last finishes it. With `count_accepted` a part waits
        for shards of others where they decide what it makes next; after `wait` seconds in which no
        part has written anything it gives up.

        With `ray` a Ray cluster makes all shards: "auto" is the one that this machine belongs to,
        "local" one of this machine alone, and HOST:PORT one elsewhere (see docs/clusters.md). Each
        worker has a GPU, or `threads` CPU cores.

        What is written is kept if the run is interrupted: KeyboardInterrupt then has a note on how
        far it is. Raises UserError for a value that does not fit, a directory that holds something
        else, a run that was begun with other settings, and a disk that is full or not writable.
        """
        batch = ranges.whole("batch", batch, 1, None)
        shard_size = ranges.whole("shard_size", shard_size, 1, None)
        shards = _shards(part, ray, out)
        images = chosen_format(image_format, image_quality)
        patience = ranges.real("wait", wait, 0)
        how = format, resume, mix_backends, shard_size, shards, patience, images
        with opened(out) as place:
            to = Destination(place.path, *how)
            bundle, known = as_begun(self.bundle, to.begun), settings_as_begun(settings, to.begun)
            run = make_run(bundle, count=count, out=to.out, **cast(SampleSettings, known))
            check_storable(place, format, run.quota)
            decides = to.settings_of(run)
            check_output(to.out, decides, resume=to.joins, shard_size=shard_size)
            return place.result(self._written(run, to, self._backend, ray, batch, on_progress))

    def write_plan(
        self,
        plan: Location | Mapping[str, Any],
        out: Location | None = None,
        *,
        layout_from: Location | None = None,
        part: tuple[int, int] | None = None,
        wait: float = PATIENCE,
        ray: str | None = None,
        batch: int = 256,
        resume: bool = False,
        mix_backends: bool = False,
        on_progress: OnProgress | None = None,
    ) -> tuple[Written, ...]:
        """Write the dataset that a plan describes (see docs/plans.md); a result for each split.

        `plan` is a YAML, JSON or TOML file, the run.json of a run that is made again, or a mapping
        of what such a file holds. `out` is where it is written, by default as the plan says, or
        synfer-out; each split has a directory of its own in it. `layout_from` are the photos that
        a run began with which is made again. The other arguments and the errors are those of
        `write`; what is wrong in the plan is found before anything is written.
        """
        batch = ranges.whole("batch", batch, 1, None)
        photos = None if layout_from is None else local(layout_from, "layout_from")
        read = read_plan(plan, self.bundle, photos)
        base = read.out or Path("synfer-out")
        if out is not None:
            base = address_of(out) or local(out, "out")
        local_base = base if isinstance(base, Path) else None
        shards = _shards(part, ray, base)
        patience = ranges.real("wait", wait, 0)
        where = read.format, resume, mix_backends, read.shard_size
        how = (*where, shards, patience, read.image_format)
        with ExitStack() as stack:
            names = read.splits or ("",)
            places = {name: stack.enter_context(opened(base / name)) for name in names}
            to = {name: Destination(place.path, *how) for name, place in places.items()}
            begun = next((each.begun for each in to.values() if each.begun), read.begun)
            read = replace(read, settings=settings_as_begun(read.settings, begun))
            runs = read.runs(as_begun(self.bundle, begun), local_base)
            for name, run in runs.items():
                check_storable(places[name], read.format, run.quota)
                settings, joins = to[name].settings_of(run), to[name].joins
                check_output(to[name].out, settings, resume=joins, shard_size=read.shard_size)
            written: list[Written] = []
            for name, run in runs.items():
                asked = self._backend
                if to[name].begun is None:
                    asked = backend_for(read, asked, run.bundle, here=ray is None)
                made = self._written(run, to[name], asked, ray, batch, on_progress)
                written.append(places[name].result(made))
        return tuple(written)

    def _written(
        self,
        run: Run,
        to: Destination,
        backend: str,
        ray: str | None,
        batch: int,
        on_progress: OnProgress | None,
    ) -> Written:
        """The dataset of a run, which this process writes, or a Ray cluster."""
        if ray is not None:
            return write_on_ray(run, to, ray, backend, self._threads, batch, on_progress)
        engines = self._engines_for(run.bundle, to, backend)
        return write_samples(run, engines, to, batch, on_progress)

    def preview(
        self,
        plan: Location | Mapping[str, Any],
        *,
        layout_from: Location | None = None,
        measure: bool = True,
        batch: int = 256,
    ) -> Preview:
        """What a plan comes to: images of each class and attribute, and time and disk.

        `plan` and `layout_from` are those of `write_plan`. Unless `measure` is False, a few images
        are made, `batch` at a time, and removed again. Raises UserError for what is wrong in the
        plan.
        """
        batch = ranges.whole("batch", batch, 1, None)
        photos = None if layout_from is None else local(layout_from, "layout_from")
        read = read_plan(plan, self.bundle, photos)
        runs = read.runs(as_begun(self.bundle, read.begun))
        found = preview(read, runs)
        if not ranges.flag("measure", measure):
            return found
        run = next(iter(runs.values()))
        backend, _ = choose(backend_for(read, self._backend, run.bundle), run.bundle)
        engines = self._loaded(run.bundle, backend)
        return replace(found, measured=measure_run(run, engines, read, batch))

    def label(
        self,
        images: Location | Sequence[Location],
        *,
        out: Location | None = None,
        format: str = "auto",
        label_scheme: str | Sequence[str] | Path | None = None,
        split: str | None = None,
        align: bool = False,
        face: str | None = None,
        face_detector: Location | None = None,
        accept_rate: float | None = None,
        threshold: float | None = None,
        calibration: Location | None = None,
        coverage: float | None = None,
        batch: int = 64,
        resume: bool = False,
        mix_backends: bool = False,
        on_progress: OnProgress | None = None,
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
        aligner = aligner_for(bundle, align, face, face_detector)
        dataset = read_images(images, table, format, label_scheme, split, bundle.label_scheme)
        calibrated = calibrated_at(calibration, coverage, self.bundle)
        job = LabelJob(dataset, accept_rate, threshold, calibrated, aligner)
        backend = self.backend
        if table is not None:
            lacking = None if table.exists() else begun
            where, _ = choose_computation(self._backend, bundle, table, lacking, mix_backends)
            backend = where.backend
        engines = self._loaded(bundle, backend)
        return label_dataset(job, engines, table, batch, resume, on_progress)

    def calibrate(
        self,
        data: Location | Sequence[Location],
        out: Location = "calibration.json",
        *,
        format: str = "auto",
        label_scheme: str | Sequence[str] | Path | None = None,
        split: str | None = None,
        align: bool = False,
        face: str | None = None,
        face_detector: Location | None = None,
        batch: int = 64,
        on_progress: OnProgress | None = None,
    ) -> Calibrations:
        """Fit the annotators' temperatures and the thresholds of label sets on labelled images.

        `data` are read, and aligned, as the images of `label`, with their labels. The file `out`,
        in JSON, is for this bundle alone. Raises UserError for a bundle without annotators, and for
        images without a label that the bundle knows.
        """
        batch = ranges.whole("batch", batch, 1, None)
        file = local(out, "out")
        bundle = self.bundle
        dataset = read_images(data, file, format, label_scheme, split, bundle.label_scheme)
        aligner = aligner_for(bundle, align, face, face_detector)
        engines = self._loaded(bundle, self.backend)
        return calibrate(dataset, engines, file, batch, on_progress, aligner)

    def augment(
        self,
        dataset: Location,
        out: Location,
        *,
        balance: Balance = "max",
        noise_scale: float = 8.0,
        repair_steps: int = 4,
        repair_strength: float = 0.5,
        attempts: int = 4,
        decode_originals: bool = False,
        align: bool = False,
        face: str | None = None,
        face_detector: Location | None = None,
        seed: int = 0,
        input_format: str = "auto",
        label_scheme: str | Sequence[str] | Path | None = None,
        split: str | None = None,
        format: str = "imagefolder",
        shard_size: int = SHARD_SIZE,
        image_format: str = "png",
        image_quality: int | None = None,
        batch: int = 64,
        resume: bool = False,
        mix_backends: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Augmented:
        """Fill up the rare classes of a labelled dataset with variations of their own images.

        `dataset`, in the format `input_format` (see `label`), is only read; `out` gets its images
        and the additions. `balance` is how many images a class is filled up to: "max" for as many
        as the largest, a number, {class: number}, or the Path of a JSON file of that.
        `noise_scale`, 0 to 1000, multiplies the noise that is drawn around the VAE's posterior
        mean. Then `repair_steps` diffusion steps, 0 or more, denoise the part `repair_strength` of
        the noise schedule, above 0 and below 1. Of up to `attempts`, the first in which the vote
        sees the class is kept. `decode_originals` passes the originals through the VAE, too. With
        `align` the originals are aligned faces of the bundle's size. The other arguments and the
        errors are those of `write` and `label`.
        """
        batch = ranges.whole("batch", batch, 1, None)
        shard_size = ranges.whole("shard_size", shard_size, 1, None)
        images = chosen_format(image_format, image_quality)
        how = format, resume, mix_backends, shard_size
        to = Destination(local(out, "out"), *how, image_format=images)
        bundle = as_begun(self.bundle, to.begun)
        refuse_inside(to.out, [local(dataset, "dataset")])
        read = read_dataset(dataset, input_format, label_scheme, split, bundle.label_scheme)
        aligner = aligner_for(bundle, align, face, face_detector)
        originals = usable(read, bundle.image_size, aligner)
        counts = originals.counts()
        wanted = additions(counts, targets(counts, balance))
        drawn = noise_scale, repair_steps, repair_strength, attempts, seed
        job = Augmentation(originals.items, wanted, *drawn, decode_originals, aligner)
        augmenter = Augmenter(job, Sampler(self._engines_for(bundle, to)))
        return augment_dataset(augmenter, read, originals, balance, to, batch, on_progress)

    def _engines_for(
        self, bundle: Bundle, to: Destination, asked: str | None = None
    ) -> LoadedEngines:
        """The engines for a job, on the backend on which it was begun if it continues."""
        where, why = to.computation(asked or self._backend, bundle)
        LOG.info(f"{bundle.name} {bundle.version} on {why}")
        return self._loaded(bundle, where.backend)

    def _loaded(self, bundle: Bundle, backend: str) -> LoadedEngines:
        """The engines of the last job, if they are the same."""
        last = self._engines
        if last is None or last.bundle != bundle or last.backend != backend:
            self._engines = last = LoadedEngines(bundle, backend, self._threads)
        return last


def verify_engines(
    bundle: Location | None = None, *, on_engine: Callable[[EngineSpec], None] = lambda spec: None
) -> Bundle:
    """Compare OpenVINO with ONNX Runtime on each engine of a bundle; returns the bundle.

    The result goes into bundle.json: `auto` then runs on OpenVINO what it computes correctly. Each
    engine has it as `parity_openvino`; `on_engine` is called with each. Raises UserError if
    OpenVINO does not work here, or the manifest cannot be written.
    """
    return parity.measured(open_bundle(bundle), on_engine)


def doctor(bundle: Location | None = None) -> Diagnosis:
    """Which backends work here, what would make others work, and whether the bundle is sound."""
    return diagnose(bundle)


def _shards(part: tuple[int, int] | None, ray: str | None, out: object) -> Part | None:
    """The part of a run that is made; None for all. Raises UserError for what is none.

    On Ray all are made, and in a folder.
    """
    if ray is not None:
        check_address(ray)
        if part is not None:
            raise UserError("`ray` makes all parts of a run; leave out `part`, or `ray`.")
        if isinstance(out, Address) or address_of(out) is not None:
            raise UserError(
                "The nodes of a Ray cluster write into a folder that all see, not into a store; "
                "give such a folder as `out` and copy the run, or make it in parts with `part`."
            )
    return None if part is None else part_of(part)
