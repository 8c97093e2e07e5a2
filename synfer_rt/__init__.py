"""Labelled facial-expression images at high throughput, without PyTorch.

    from synfer_rt import Sampler, make_requests, open_bundle

README.md shows how they go together.

The names below load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synfer_rt.bundle import Bundle, open_bundle
    from synfer_rt.diffusion.schedule import Schedule
    from synfer_rt.diffusion.solvers import Trajectory, trajectory
    from synfer_rt.errors import UserError
    from synfer_rt.sampling.requests import Request, Requests, make_requests
    from synfer_rt.sampling.sampler import Sample, Sampler

__all__ = [
    "Bundle",
    "Request",
    "Requests",
    "Sample",
    "Sampler",
    "Schedule",
    "Trajectory",
    "UserError",
    "make_requests",
    "open_bundle",
    "trajectory",
]

_HOMES = {
    "Bundle": "bundle",
    "Requests": "sampling.requests",
    "Request": "sampling.requests",
    "Sample": "sampling.sampler",
    "Sampler": "sampling.sampler",
    "Schedule": "diffusion.schedule",
    "Trajectory": "diffusion.solvers",
    "UserError": "errors",
    "make_requests": "sampling.requests",
    "open_bundle": "bundle",
    "trajectory": "diffusion.solvers",
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
