"""What a machine and a bundle can do."""

from __future__ import annotations

from collections.abc import Callable

from synfer_rt.backends import parity
from synfer_rt.bundle import Bundle, EngineSpec, open_bundle
from synfer_rt.jobs.diagnosis import Diagnosis, diagnose
from synfer_rt.paths import Location


def verify_engines(
    bundle: Location | None = None, *, on_engine: Callable[[EngineSpec], None] = lambda spec: None
) -> Bundle:
    """Compare OpenVINO with ONNX Runtime on each engine of a bundle; returns the bundle.

    The result goes into bundle.json: `auto` then runs on OpenVINO what it computes correctly. Each
    engine has it as `parity_openvino`; `on_engine` is called with each. Raises UserError if
    OpenVINO does not work here, or the manifest cannot be written.
    """
    return parity.measured(open_bundle(bundle), on_engine)


def doctor(bundle: Location | None = None) -> Diagnosis:
    """Which backends work here, what would make others work, and whether the bundle is sound."""
    return diagnose(bundle)
