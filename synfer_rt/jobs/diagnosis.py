"""What works on this machine: the packages, the backends, and a bundle on them."""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from synfer_rt import backends
from synfer_rt.backends import BACKENDS, BackendStatus, driver, onnxruntime
from synfer_rt.backends.driver import Gpu
from synfer_rt.backends.runtimes import COMPILING
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.errors import UserError

LOG = logging.getLogger(__name__)
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx")
"""Packages that execute engines."""
_LIBRARIES = ("cuda-python", "nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
"""Packages that those for NVIDIA GPUs need."""


@dataclass(frozen=True)
class Diagnosis:
    """What works here.

    `packages` are the versions of the runtimes and of what the core needs, by name; `system`,
    `cores` and `gpu` (the first one that NVIDIA's driver shows, or None) describe the machine. Each
    of the `backends` that works has computed small networks correctly (backends/probes.py).
    `conflict` says what is wrong with the installed runtimes, None if nothing is. `bundle` is None
    if it cannot be opened, and `runs_on` is the backend that it runs on, with the reason; `error`
    says why nothing can be sampled, None if something can.
    """

    python: str
    system: str
    cores: int
    gpu: Gpu | None
    packages: dict[str, str]
    backends: tuple[BackendStatus, ...]
    conflict: str | None
    bundle: Bundle | None
    runs_on: str | None
    error: str | None


def diagnose(directory: str | Path | None = None) -> Diagnosis:
    """What works here, for the bundle in `directory`, by default the one that is installed."""
    bundle = runs_on = error = None
    try:
        bundle = open_bundle(directory)
        _, runs_on = backends.choose(bundle=bundle)
    except UserError as problem:
        error = str(problem)
    return Diagnosis(
        platform.python_version(),
        f"{platform.system()} {platform.machine()}",
        backends.default_threads(),
        driver.gpu(),
        _versions("numpy", "tokenizers", *RUNTIMES, *_LIBRARIES),
        tuple(_probed(name) for name in BACKENDS),
        onnxruntime.installation_problem(),
        bundle,
        runs_on,
        error,
    )


def _probed(backend: str) -> BackendStatus:
    if backend in COMPILING and backends.status(backend).works:
        LOG.info(f"Trying {backend}, which compiles what it is tried with, for up to minutes.")
    return backends.probed(backend)


def _versions(*packages: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
