"""The CUDA engines of a bundle: made from its finished engines, whose weights they use."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import onnx

from synfer_rt.bundle import Bundle, write_manifest
from synfer_rt.bundle.cuda import cuda_file
from synfer_rt.bundle.engine_specs import EngineSpec
from synfer_rt.errors import UserError
from synfer_rt.export.build.at_once import at_once
from synfer_rt.export.build.entries import Built, Entry, finished, interface
from synfer_rt.export.build.hashes import EXPORT, code_hash, digest, sha256
from synfer_rt.export.build.log import LOG, build_log
from synfer_rt.export.build.staging import Staging, log_file
from synfer_rt.export.cuda.engine import cuda_engine, is_guide
from synfer_rt.export.cuda.parity import TOLERANCES, compared_batches, max_relative_error
from synfer_rt.export.onnx.shared_weights import data_files
from synfer_rt.export.peak_memory import peak_bytes, reset_peak

LIBRARIES = ("onnx", "onnx_ir", "onnxruntime")
"""The libraries that make and compare CUDA engines."""
_CODE = ("tensorrt/mixed_precision.py", "build/cuda_engines.py")
"""Code besides `cuda/` that shapes a CUDA engine or its entry."""


@dataclass(frozen=True)
class _Job:
    """A CUDA engine to make in the directory of `bundle`, which is that of `place`'s new bundle."""

    bundle: Bundle
    place: Staging
    name: str
    key: str


@dataclass(frozen=True)
class _Made:
    """A CUDA engine's entry and the report on it, or None and why there is none."""

    name: str
    entry: Entry | None
    built: Built | None
    remark: str | None = None


def check_precision(precision: str) -> None:
    """Raise UserError for a bundle of this precision that cannot have CUDA engines."""
    if precision == "int8":
        raise UserError(
            "int8 engines compute in int8 on CPUs only, so a bundle of them cannot have CUDA "
            'engines; build with `precision="fp16"` for `target="cuda"`.'
        )


def with_cuda_engines(
    bundle: Bundle,
    place: Staging,
    jobs: int,
    report: Callable[[Built], None],
    remark: Callable[[str], None],
) -> Bundle:
    """Give `bundle`, in the directory `place.whole`, a CUDA engine for each engine.

    One is reused if the files that it was made from, the code and the libraries are those of an
    earlier build. `jobs` are made at once. Raises UserError for an engine of the model itself that
    cannot be fused, or whose error is above its tolerance. A classifier or an AU reader, which is
    the user's, computes in float32 then, or has no CUDA engine; `remark` is called with a sentence.
    """
    entries: dict[str, Entry] = {}
    missing: list[_Job] = []
    for name, spec in bundle.engines.items():
        key = _key(bundle, spec)
        entry = _reused(place, name, key)
        if entry is None:
            missing.append(_Job(bundle, place, name, key))
            continue
        LOG.info("%s (cuda): reused", name)
        place.record(_record(name), entry)
        place.take(place.bundle / entry["file"], entry["file"])
        entries[name] = entry
        report(finished(_title(name), entry, place.whole, None))
    for made in at_once(_make, missing, jobs):
        if made.entry is not None and made.built is not None:
            entries[made.name] = made.entry
            report(made.built)
        if made.remark:
            remark(made.remark)
    fields = {key: v for key, v in bundle.manifest.items() if key not in ("format", "files")}
    ordered = {name: entries[name] for name in bundle.engines if name in entries}
    return write_manifest(bundle.path, {**fields, "cuda": ordered})


def _key(bundle: Bundle, spec: EngineSpec) -> str:
    """The build key of an engine's CUDA engine.

    It refers to places in the engine's files, so their names and bytes are part of the key.
    """
    files = {spec.file, *data_files(bundle.path / spec.file)}
    listed = bundle.manifest["files"]
    hashes = {
        name: listed[name]["sha256"] if name in listed else sha256(bundle.path / name)
        for name in files
    }
    folder = sorted(file.relative_to(EXPORT).as_posix() for file in (EXPORT / "cuda").glob("*.py"))
    versions = [metadata.version(library) for library in ("onnx", "onnx_ir")]
    return digest("cuda", spec.name, hashes, code_hash(*folder, *_CODE), versions)


def _reused(place: Staging, name: str, key: str) -> Entry | None:
    old = ((place.old or {}).get("cuda") or {}).get(name)
    return place.recorded(_record(name), key) or place.inherited(old, key)


def _make(job: _Job) -> _Made:
    """Make and compare a CUDA engine; its manifest entry is recorded in the staging directory."""
    with build_log(log_file(job.place.out)):
        start = time.perf_counter()
        reset_peak()
        entry, remark = _in_best_precision(job)
        if remark:
            LOG.warning("%s", remark)
        if entry is None:
            return _Made(job.name, None, None, remark)
        job.place.keep(entry["file"])
        job.place.record(_record(job.name), entry)
        seconds = time.perf_counter() - start
        built = finished(_title(job.name), entry, job.place.whole, seconds, peak_bytes())
        LOG.info("%s", built)
        return _Made(job.name, entry, built, remark)


def _in_best_precision(job: _Job) -> tuple[Entry | None, str | None]:
    """The entry of a CUDA engine, and what the user should know about it."""
    name = job.name
    if not _is_users(name):
        try:
            return _fused(job, "fp32" if is_guide(name) else "fp16"), None
        except UserError as error:
            raise UserError(
                f'{error} Leave out `target="cuda"`: GPUs run the engines of the bundle, too, only '
                "slower."
            ) from None
    try:
        return _fused(job, "fp16"), None
    except UserError as error:
        half = error
    try:
        return _fused(job, "fp32"), f"{name} computes in float32 on GPUs. {half}"
    except UserError as error:
        return None, f"{name} has no CUDA engine, and runs on GPUs as it is. {error}"


def _fused(job: _Job, precision: str) -> Entry:
    """Make a CUDA engine that computes in `precision`; UserError if it differs from the engine."""
    bundle, name = job.bundle, job.name
    spec = bundle.engines[name]
    target = bundle.path / cuda_file(spec)
    if target.name in {other.file for other in bundle.engines.values()}:
        raise UserError(f"{target.name} is the file of another engine.")
    LOG.info("%s (cuda): rewriting in %s", name, precision)
    try:
        cuda_engine(bundle.path / spec.file, target, name, precision)
        error, tolerance = max_relative_error(bundle, name, target), TOLERANCES[precision]
        if not error <= tolerance:
            raise UserError(
                f"The CUDA engine of {name} differs in {precision} from {name} by {error:.1e} of "
                f"its largest value, more than the tolerance {tolerance:.1e}."
            )
    except UserError:
        target.unlink(missing_ok=True)
        raise
    tensors = interface(target)
    return {
        "file": target.name,
        "precision": precision,
        "inputs": tensors["inputs"],
        "outputs": tensors["outputs"],
        "source_sha256": bundle.manifest["files"][spec.file]["sha256"],
        "nodes": len(onnx.load(target, load_external_data=False).graph.node),
        "parity": {
            "tolerance": tolerance,
            "max_relative_error": float(f"{error:.1e}"),
            "batches": list(compared_batches(bundle, name)),
        },
        "build_key": job.key,
    }


def _is_users(name: str) -> bool:
    """Whether an engine was an ONNX file in the checkpoint, with operators of any kind."""
    return name.startswith("classifier.") or name == "au-reader"


def _record(name: str) -> str:
    return f"cuda.{name}"


def _title(name: str) -> str:
    return f"{name} (cuda)"
