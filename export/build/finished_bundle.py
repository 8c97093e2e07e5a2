"""Add CUDA engines to a finished bundle, without its checkpoint and without PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from synfer_rt import ranges
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.opening import open_without_cuda_files
from synfer_rt.export.build.cuda_engines import LIBRARIES, check_precision, with_cuda_engines
from synfer_rt.export.build.entries import Built
from synfer_rt.export.build.log import LOG, log_of, to_stderr
from synfer_rt.export.build.staging import log_file, staging
from synfer_rt.paths import local


def add_cuda_engines(
    bundle: str | Path,
    out: str | Path | None = None,
    *,
    jobs: int = 1,
    force: bool = False,
    report: Callable[[Built], None] = lambda built: None,
    remark: Callable[[str], None] = to_stderr,
) -> Bundle:
    """Give the bundle in the directory `bundle` a CUDA engine for each of its engines.

    It does what `build_engines` does with `target="cuda"`, and needs onnx and onnx_ir only. The
    bundle itself is updated, or with `out` a copy made there; every other file stays as it is, and
    so does the bundle's hash. The same call again updates what has changed, and makes CUDA engines
    again whose files are missing or damaged. The other arguments and
    the errors are those of `build_engines`; with `force` all CUDA engines are made again.
    """
    jobs = ranges.whole("jobs", jobs, 1, None)
    source = open_without_cuda_files(bundle)
    for spec in source.engines.values():
        check_precision(spec.precision)
    made = Path(os.path.realpath(source.path if out is None else local(out)))
    weights = set((source.manifest["source"] or {}).get("sha256", {}).values())
    with staging(made, source.name, force, weights) as place, log_of(log_file(made), LIBRARIES):
        LOG.info("adding CUDA engines to %s in %s", source.path, made)
        place.whole.mkdir()
        for name in source.manifest["files"].keys() - {spec.file for spec in source.cuda.values()}:
            place.take(source.path / name, name, copied=made != source.path.resolve())
        whole = replace(source, path=place.whole)
        finished = with_cuda_engines(whole, place, jobs, report, remark)
        LOG.info("%s is whole", made)
    return replace(finished, path=made)
