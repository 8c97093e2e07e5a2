"""The choice of a backend for a bundle, and of another one for a single engine."""

from __future__ import annotations

from typing import cast

from synfer_rt.backends.runtimes import BACKENDS, TARGETS, status
from synfer_rt.bundle import Bundle, EngineSpec
from synfer_rt.errors import UserError, nearest

_OPENVINO, _ONNXRUNTIME = "openvino-cpu", "onnxruntime-cpu"
COMPILES = "onnxruntime-tensorrt"
"""TensorRT compiles each engine when it first runs, and again for batches and GPUs that are new."""


def choose(backend: str = "auto", bundle: Bundle | None = None) -> tuple[str, str]:
    """The backend that `backend` (a name of BACKENDS, or auto) means here, and a sentence on why.

    With a bundle, the backend is one that the bundle has engines for. A backend that runs plans
    needs them for this GPU and this version of its library. `auto` takes OpenVINO only if the
    bundle says how far each engine deviates there, and never a backend that compiles for minutes
    when an engine first runs. Raises UserError for an unknown name, and for a
    backend that does not work here or has no engines in the bundle.
    """
    check_name(backend)
    if backend == "auto":
        return _choose_automatically(bundle)
    if problem := _obstacle(backend, bundle):
        raise UserError("{} does not work here: {}; {}.".format(backend, *problem))
    return backend, f"{backend} ({'; '.join(['as requested', *_remarks(backend, bundle)])})"


def check_name(backend: str) -> None:
    """Raise UserError unless this is auto or a name of BACKENDS, whether it works here or not."""
    if not isinstance(cast(object, backend), str):
        raise UserError(f"`backend` must be a text such as auto, got {backend!r}.")
    if backend != "auto" and backend not in BACKENDS:
        raise UserError(
            f"Unknown backend {backend!r}; the nearest is {nearest(backend, BACKENDS)} "
            f"(known are auto, {', '.join(BACKENDS)})."
        )


def _choose_automatically(bundle: Bundle | None) -> tuple[str, str]:
    passed_over: list[tuple[str, str]] = []
    for name in BACKENDS:
        if name == COMPILES:
            continue  # not even tried, since it compiles what it is tried with
        problem = _obstacle(name, bundle)
        reason = problem[0] if problem else _doubt(name, bundle)
        if reason is None:
            # `synfer-rt doctor` lists why the others do not work here.
            here = [(other, why) for other, why in passed_over if status(other).works]
            remarks = [*_remarks(name, bundle), *(f"not {other}: {why}" for other, why in here)]
            return name, f"{name} ({'; '.join(remarks)})" if remarks else name
        passed_over.append((name, reason))
    reason, remedy = passed_over[-1][1], status(BACKENDS[-1]).remedy
    raise UserError(f"No backend works here: {reason}; {remedy}.")


def runs_on(spec: EngineSpec, backend: str) -> str:
    """The backend that an engine runs on where `backend` runs its bundle.

    An engine that OpenVINO computes wrongly, by the bundle's own measurement, runs on ONNX Runtime
    beside the others.
    """
    parity = spec.parity_openvino
    wrong = backend == _OPENVINO and parity is not None and not parity.holds
    return _ONNXRUNTIME if wrong else backend


def _remarks(backend: str, bundle: Bundle | None) -> list[str]:
    """Clauses on what differs for a bundle on the backend that runs it."""
    if backend == COMPILES:
        return ["TensorRT first compiles each engine, which takes minutes and is kept in the cache"]
    if bundle is None or backend != _OPENVINO:
        return []
    from synfer_rt.backends import openvino

    specs = bundle.engines.values()
    remarks: list[str] = []
    if names := [spec.name for spec in specs if runs_on(spec, backend) != backend]:
        why = "since OpenVINO computes that wrongly"
        remarks.append(f"{', '.join(names)} on {_ONNXRUNTIME}, {why}")
    versions = {spec.parity_openvino.version for spec in specs if spec.parity_openvino} - {""}
    here = openvino.version()
    if others := sorted(versions - {here}):
        remarks.append(
            f"measured with OpenVINO {', '.join(others)}, and this is {here}; "
            f"`synfer-rt verify-engines {bundle.path}` measures again"
        )
    return remarks


def _doubt(backend: str, bundle: Bundle | None) -> str | None:
    """Why `auto` does not choose a backend that would run the bundle, or None."""
    if bundle is None or backend != _OPENVINO:
        return None
    if any(spec.parity_openvino is None for spec in bundle.engines.values()):
        return (
            "this bundle was not compared with ONNX Runtime there; "
            f"`synfer-rt verify-engines {bundle.path}` compares it"
        )
    if all(runs_on(spec, backend) != backend for spec in bundle.engines.values()):
        return "OpenVINO computes every engine wrongly"
    return None


def _obstacle(backend: str, bundle: Bundle | None) -> tuple[str, str] | None:
    """Why a backend cannot be used, with the remedy, or None."""
    found = status(backend)
    if not found.works:
        return found.reason, found.remedy
    if bundle is None or backend not in TARGETS:
        return None
    from synfer_rt.backends import tensorrt

    return tensorrt.obstacle(bundle, backend)
