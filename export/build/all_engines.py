"""All engines of a bundle: reused or built, in this process or several at once in others."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from synfer_rt.bundle import Bundle, write_manifest
from synfer_rt.bundle.engine_specs import DENOISER, DISTILLED, denoises
from synfer_rt.bundle.sizes import Sizes
from synfer_rt.export.build.at_once import at_once
from synfer_rt.export.build.entries import Built, Entry, finished, interface
from synfer_rt.export.build.hashes import code_hash, digest
from synfer_rt.export.build.log import LOG
from synfer_rt.export.build.one_engine import Job, Source, build_engine, parity
from synfer_rt.export.build.staging import Staging
from synfer_rt.export.build.verify import TOLERANCES, batches, check, measured
from synfer_rt.export.peak_memory import peak_bytes, reset_peak
from synfer_rt.export.tensorrt.compile import PLAN_TARGETS

PRECISIONS = tuple(TOLERANCES)
TARGETS = ("onnx", "openvino", "cuda", *PLAN_TARGETS)
"""What a bundle can be built for."""

Report = Callable[[Built], None]


@dataclass(frozen=True)
class Options:
    """How to build.

    `precision` is how weights are stored. `tolerance` is the largest relative error allowed, None
    for that of verify.TOLERANCES. `targets` are "onnx" (always built), "openvino" (every engine
    must be right there), "cuda" (a CUDA engine for each engine), "tensorrt" and "tensorrt-rtx"
    (plans for the GPUs `capabilities` at the smallest, the best and the largest `batch`). `jobs`
    engines are built at once, each in a process of its own. `force` reuses nothing and replaces a
    bundle of another model.
    """

    precision: str = "fp32"
    tolerance: float | None = None
    targets: tuple[str, ...] = ("onnx",)
    capabilities: tuple[str, ...] = ()
    batch: tuple[int, int, int] = (1, 8, 32)
    jobs: int = 1
    force: bool = False

    def precision_of(self, engine: str) -> str:
        """An engine's precision: int8 is for denoisers and classifiers, the rest is fp16.

        So is a student, whose few steps do not average the errors of int8 out.
        """
        if self.precision == "int8":
            denoiser = denoises(engine) and engine != DISTILLED
            return "int8" if denoiser or engine.startswith("classifier.") else "fp16"
        return self.precision

    def exported_precision_of(self, engine: str) -> str:
        """The precision of the export itself: an int8 engine is quantized from an fp32 one."""
        precision = self.precision_of(engine)
        return "fp32" if precision == "int8" else precision

    def tolerance_of(self, precision: str) -> float:
        """The largest relative error of an engine of this precision."""
        if self.tolerance is None or precision != self.precision:
            return TOLERANCES[precision]
        return self.tolerance


@dataclass(frozen=True)
class Recipe:
    """Everything that the building of the engines needs.

    `manifest` is what bundle.json says besides the engines; `keys` are the build keys of the
    exports, by engine; prompts have `max_length` tokens.
    """

    source: Source
    place: Staging
    options: Options
    manifest: Mapping[str, Any]
    keys: Mapping[str, str]
    max_length: int

    @property
    def batches(self) -> tuple[int, int]:
        """The batches at which the engines are verified."""
        height, width = self.manifest["image_size"]
        return batches((height, width))

    @property
    def axes(self) -> dict[str, tuple[int, int, int]]:
        """The smallest, best and largest length of each free height and width (Sizes.axes)."""
        fields = self.manifest
        if "sizes" not in fields:
            return {}
        height, width = fields["image_size"]
        latent = fields["latent"]["height"], fields["latent"]["width"]
        return Sizes(**fields["sizes"]).axes((height, width), latent)


def make_engines(recipe: Recipe, report: Report) -> dict[str, Entry]:
    """Reuse or build every engine of `recipe`: the manifest's entries, in the recipe's order.

    Raises UserError for an engine whose error is above the tolerance.
    """
    names = [name for name in recipe.keys if recipe.options.precision_of(name) != "int8"]
    entries = _export(recipe, recipe.place, names, report)
    entries |= _quantize(
        recipe, entries, [name for name in recipe.keys if name not in names], report
    )
    return {name: entries[name] for name in recipe.keys}


def _export(
    recipe: Recipe, place: Staging, names: Sequence[str], report: Report
) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    jobs = []
    for name in names:
        key, precision = recipe.keys[name], recipe.options.exported_precision_of(name)
        tolerance = recipe.options.tolerance_of(precision)
        entry = _reusable(place, name, key, tolerance)
        if entry is not None:
            place.record(name, entry)
            entries[name] = entry
            report(finished(name, entry, place.bundle, None))
            continue
        jobs.append(
            Job(
                recipe.source,
                place,
                name,
                precision,
                tolerance,
                recipe.max_length,
                key,
                recipe.batches,
            )
        )
    for built in at_once(build_engine, jobs, recipe.options.jobs):
        report(built)
    return entries | {job.name: place.entry(job.name) for job in jobs}


def _reusable(place: Staging, name: str, key: str, tolerance: float) -> Entry | None:
    """The engine `name` of an earlier build, if its key is the same; UserError for its error."""
    old = ((place.old or {}).get("engines") or {}).get(name)
    entry = place.recorded(name, key) or place.inherited(old, key, weights=True)
    if entry is None:
        return None
    LOG.info("%s: reused", name)
    check(name, entry["parity"]["max_relative_error"], tolerance)
    return {**entry, "parity": {**entry["parity"], "tolerance": tolerance}}


def _quantize(
    recipe: Recipe, entries: Mapping[str, Entry], names: Sequence[str], report: Report
) -> dict[str, Entry]:
    """Reuse or quantize the int8 engines `names`; `entries` are the other engines."""
    made: dict[str, Entry] = {}
    place, defaults = recipe.place, recipe.manifest["defaults"]
    keys = {}
    for name in names:
        others = ["conditioner"] if denoises(name) else ["conditioner", DENOISER, "decoder"]
        parts = [recipe.keys[part] for part in (name, *others)]
        made_of = (parts, defaults, recipe.manifest["schedule"], code_hash("onnx/quantize.py"))
        keys[name] = digest("int8", made_of)
        entry = _reusable(place, name, keys[name], recipe.options.tolerance_of("int8"))
        if entry is not None:
            place.record(name, entry)
            made[name] = entry
            report(finished(name, entry, place.bundle, None))
    missing = [name for name in names if name not in made]
    if not missing:
        return made
    from synfer_rt.export.onnx.quantize import calibration_inputs, quantize

    floats = replace(place, work=place.work / "float", old=None)
    floats.bundle.mkdir(parents=True, exist_ok=True)
    exported = _export(recipe, floats, missing, report)
    own = {f"{name}.onnx{suffix}" for name in missing for suffix in ("", ".data")}
    for file in place.bundle.iterdir():  # over files of an interrupted build, which may be older
        if file.is_file() and file.name not in own:
            shutil.copyfile(file, floats.bundle / file.name)
    bundle = write_manifest(
        floats.bundle, {**recipe.manifest, "engines": {**entries, **made, **exported}}
    )
    for name in missing:
        start = time.perf_counter()
        reset_peak()
        LOG.info("%s: quantizing", name)
        path = place.bundle / f"{name}.onnx"
        place.discard(name, path.name)
        inputs = calibration_inputs(bundle, name, batch=_calibration_batch(bundle))
        quantize(floats.bundle / path.name, path, inputs, name)
        inputs = (x for n in recipe.batches for x in calibration_inputs(bundle, name, n, n))
        cases = measured(floats.bundle / path.name, inputs)
        tolerance = recipe.options.tolerance_of("int8")
        made[name] = {
            **exported[name],
            "precision": "int8",
            **interface(path),
            "parity": parity(name, path, cases, tolerance, recipe.batches),
            "build_key": keys[name],
        }
        place.record(name, made[name])
        seconds = time.perf_counter() - start
        report(finished(name, made[name], place.bundle, seconds, peak_bytes()))
    shutil.rmtree(floats.work, ignore_errors=True)
    return made


def _calibration_batch(bundle: Bundle) -> int:
    """The batch for calibration, which is small because the calibrator keeps every activation."""
    return min(8, max(1, (1 << 18) // math.prod(bundle.image_size)))
