"""Bundles whose CUDA engines a CPU can run: the engines with the interface of CUDA engines."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import onnx_ir as ir
import pytest

from synfer_rt.backends import onnxruntime
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.cuda import cuda_file, cuda_interface
from synfer_rt.bundle.writing import write_manifest
from synfer_rt.export.cuda.device_interface import give_device_interface

CPU = "onnxruntime-cpu"


def with_cuda_engines(bundle: Bundle, directory: Path, without: tuple[str, ...] = ()) -> Bundle:
    """A copy of a bundle with a CUDA engine for every engine but those in `without`.

    They compute in float32 with the operators of the engines, so they give equal values.
    """
    shutil.copytree(bundle.path, directory)
    entries = {}
    for name, spec in bundle.engines.items():
        if name in without:
            continue
        model = ir.load(directory / spec.file)
        give_device_interface(model, name)
        ir.external_data.load_to_model(model)
        ir.save(model, directory / cuda_file(spec))
        inputs, outputs = (list(map(asdict, side)) for side in cuda_interface(spec))
        entries[name] = {
            "file": cuda_file(spec),
            "precision": "fp32",
            "inputs": inputs,
            "outputs": outputs,
            "source_sha256": bundle.manifest["files"][spec.file]["sha256"],
            "nodes": len(model.graph),
            "parity": {"tolerance": 2e-2, "max_relative_error": 0.0, "batches": [1, 3]},
        }
    fields = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    return write_manifest(directory, {**fields, "cuda": entries})


def run_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ONNX Runtime's CPU backend run CUDA engines from buffers to buffers."""
    monkeypatch.setitem(onnxruntime.CUDA_ENGINES_ON, CPU, "cpu")
