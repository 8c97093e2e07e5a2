"""Labelled facial-expression images at high throughput, without PyTorch.

    from synfer_rt import Sampler, make_plan, open_bundle

README.md shows how they go together.

The names below load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synfer_rt.bundle import Bundle, open_bundle
    from synfer_rt.errors import UserError
    from synfer_rt.plan import Plan, make_plan
    from synfer_rt.request import Request
    from synfer_rt.sampler import Sample, Sampler
    from synfer_rt.schedule import Schedule
    from synfer_rt.solvers import Trajectory, trajectory

__all__ = [
    "Bundle",
    "Plan",
    "Request",
    "Sample",
    "Sampler",
    "Schedule",
    "Trajectory",
    "UserError",
    "make_plan",
    "open_bundle",
    "trajectory",
]

_HOMES = {
    "Bundle": "bundle",
    "Plan": "plan",
    "Request": "request",
    "Sample": "sampler",
    "Sampler": "sampler",
    "Schedule": "schedule",
    "Trajectory": "solvers",
    "UserError": "errors",
    "make_plan": "plan",
    "open_bundle": "bundle",
    "trajectory": "solvers",
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
