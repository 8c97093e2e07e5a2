"""Labelled facial-expression images at high throughput, without PyTorch.

    import synfer_rt

    model = synfer_rt.load()
    samples = model.sample(labels=["happy"], aus={"AU12": 0.8}, count=8)
    model.write("out", count=1000, format="webdataset")

`synfer_rt.api` describes the model and the functions. The names below load on first use, so that
importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synfer_rt.api import (
        Model,
        distill,
        doctor,
        evaluate,
        finish,
        load,
        status,
        verify,
        verify_engines,
        write_report,
    )
    from synfer_rt.bundle import Bundle, open_bundle
    from synfer_rt.diffusion.schedule import Schedule
    from synfer_rt.diffusion.solvers import Trajectory, trajectory
    from synfer_rt.errors import UserError
    from synfer_rt.sampling.requests import Request, Requests, make_requests
    from synfer_rt.sampling.sampler import Sampler
    from synfer_rt.sampling.samples import Sample, Samples

__all__ = [
    "Bundle",
    "Model",
    "Request",
    "Requests",
    "Sample",
    "Sampler",
    "Samples",
    "Schedule",
    "Trajectory",
    "UserError",
    "distill",
    "doctor",
    "evaluate",
    "finish",
    "load",
    "make_requests",
    "open_bundle",
    "status",
    "trajectory",
    "verify",
    "verify_engines",
    "write_report",
]

_HOMES = {
    "Bundle": "bundle",
    "Model": "api",
    "Request": "sampling.requests",
    "Requests": "sampling.requests",
    "Sample": "sampling.samples",
    "Sampler": "sampling.sampler",
    "Samples": "sampling.samples",
    "Schedule": "diffusion.schedule",
    "Trajectory": "diffusion.solvers",
    "UserError": "errors",
    "distill": "api",
    "doctor": "api",
    "evaluate": "api",
    "finish": "api",
    "load": "api",
    "make_requests": "sampling.requests",
    "open_bundle": "bundle",
    "status": "api",
    "trajectory": "diffusion.solvers",
    "verify": "api",
    "verify_engines": "api",
    "write_report": "api",
}

# `export`, `engines` and `bench` are subpackages. An installation has them inside this folder, a
# clone beside it, where Python would otherwise not look when it starts there.
_FOLDER = Path(__file__).parent
if not (_FOLDER / "export").is_dir():
    __path__.append(str(_FOLDER.parent))


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("synfer-rt")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
