"""Where and how engines compute, which a run's images depend on besides its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from synfer_rt.backends.choice import runs_on
from synfer_rt.backends.runtimes import computes
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.former_names import current_name


@dataclass(frozen=True)
class Computation:
    """Equal computations make equal images of the same requests; others differ in some pixels.

    `backend` is one of BACKENDS, `precision` that of the denoiser, `runtime` the library with its
    version, `device` "cpu" or a GPU's compute capability. `elsewhere` are the engines that run on
    another backend, since this one computes them wrongly (`backends.runs_on`).
    """

    backend: str
    precision: str
    runtime: str
    device: str
    elsewhere: tuple[str, ...]

    def settings(self) -> dict[str, Any]:
        """The fields as JSON values, for run.json."""
        return {**asdict(self), "elsewhere": list(self.elsewhere)}

    def differs(self, settings: Mapping[str, Any]) -> list[str]:
        """The fields that differ from those of a run's settings; missing settings do not count."""
        begun = dict(settings)
        if isinstance(elsewhere := begun.get("elsewhere"), list):
            engines = cast("list[Any]", elsewhere)
            begun["elsewhere"] = [current_name(str(engine)) for engine in engines]
        return [n for n, value in self.settings().items() if begun.get(n, value) != value]


FIELDS = tuple(field.name for field in fields(Computation))


def computation(bundle: Bundle, backend: str) -> Computation:
    """How `backend`, one of BACKENDS that works here, computes a bundle."""
    precision, version, device = computes(bundle, backend)
    others = (name for name, spec in bundle.engines.items() if runs_on(spec, backend) != backend)
    return Computation(backend, precision, version, device, tuple(others))
