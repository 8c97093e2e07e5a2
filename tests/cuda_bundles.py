"""Bundles whose CUDA engines a CPU can run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import onnx_ir as ir
import pytest

from synfer_rt.backends import onnxruntime
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.cuda import cuda_file, cuda_interface
from synfer_rt.bundle.writing import write_manifest
from synfer_rt.export.cuda.device_interface import give_device_interface
from synfer_rt.export.cuda.engine import cuda_engine
from synfer_rt.export.cuda.reference import write_reference

CPU = "onnxruntime-cpu"


def plain_cuda_engine(source: Path, target: Path, name: str) -> None:
    """A CUDA engine in float32 with the operators of the engine, so it gives equal values."""
    model = ir.load(source)
    give_device_interface(model, name)
    ir.external_data.load_to_model(model)
    ir.save(model, target)


def reference_cuda_engine(source: Path, target: Path, name: str) -> None:
    """A real CUDA engine, of which operators without a CPU kernel are written out."""
    real = target.with_name(f"real.{target.name}")
    cuda_engine(source, real, name)
    write_reference(real, target)
    real.unlink()


def with_cuda_engines(
    bundle: Bundle,
    directory: Path,
    without: Sequence[str] = (),
    make: Callable[[Path, Path, str], None] = plain_cuda_engine,
) -> Bundle:
    """A copy of a bundle with a CUDA engine for every engine but those in `without`."""
    shutil.copytree(bundle.path, directory)
    entries = {}
    for name, spec in bundle.engines.items():
        if name in without:
            continue
        make(directory / spec.file, directory / cuda_file(spec), name)
        inputs, outputs = (list(map(asdict, side)) for side in cuda_interface(spec))
        entries[name] = {
            "file": cuda_file(spec),
            "precision": "fp32",
            "inputs": inputs,
            "outputs": outputs,
            "source_sha256": bundle.manifest["files"][spec.file]["sha256"],
            "nodes": 1,
            "parity": {"tolerance": 2e-2, "max_relative_error": 0.0, "batches": [1, 3]},
        }
    fields = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    return write_manifest(directory, {**fields, "cuda": entries})


def run_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ONNX Runtime's CPU backend run CUDA engines from buffers to buffers."""
    monkeypatch.setitem(onnxruntime.CUDA_ENGINES_ON, CPU, "cpu")
