"""ONNX engines -> TensorRT or TensorRT-RTX plans, each built in a process of its own.

TensorRT-RTX compiles for any GPU that it knows, plain TensorRT for the GPU of the machine. Plans
contain their weights: a plan that is refitted from the ONNX file would be smaller on disk, but
would need the parser and the float16 graph again wherever it is loaded. Weights are not streamed:
the largest Stable Diffusion UNet of this family has 1.7 GB in float16, less than the memory of
these GPUs.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.backends import tensorrt_library
from synfer_rt.bundle.engine_specs import BATCH
from synfer_rt.errors import UserError
from synfer_rt.export.peak_memory import peak_bytes

PLAN_TARGETS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""The Python module of each target; the package to install has the target's name."""
PRECISIONS = ("fp32", "fp16")
FAMILIES = {
    "turing": ("sm75",),
    "ampere": ("sm80", "sm86"),
    "ada": ("sm89",),
    "blackwell": ("sm120", "sm121"),
}
"""The compute capabilities of each family of GPUs that TensorRT-RTX compiles for."""
RTX_DEFAULT = ("sm86", "sm89", "sm120")
"""GeForce RTX 30, 40 and 50, and the professional cards of their families."""
HALF_TOLERANCE = 2e-2
"""Largest relative error that computing in float16 may cost."""
_LARGEST_BATCH = 4096
_AMPERE = 80
_REASON_LENGTH = 300


@dataclass(frozen=True)
class Compiled:
    """A finished plan: its manifest entry, the seconds it took and the builder's peak memory."""

    entry: dict[str, Any]
    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class _Job:
    """The task of a builder process, which gets it as JSON."""

    target: str
    capabilities: tuple[str, ...]
    free: dict[str, tuple[int, int, int]]
    precision: str
    onnx: str
    plan: str
    timing_cache: str | None
    example: str | None


def compile_plan(
    name: str,
    onnx_file: Path,
    out: Path,
    target: str,
    capabilities: Sequence[str],
    batch: tuple[int, int, int],
    precision: str,
    log: Path,
    *,
    timing_cache: Path | None = None,
    example: Mapping[str, np.ndarray] | None = None,
    axes: Mapping[str, tuple[int, int, int]] | None = None,
) -> Compiled:
    """Compile an engine ahead of time to `out/<target>/<name>.plan`.

    `onnx_file` is the engine's (external data beside it), `out` the bundle's directory.
    `capabilities` are like "sm89", or FAMILIES by name; none means the GPU of this machine, and
    for TensorRT-RTX without one that it knows, RTX_DEFAULT. `batch` is the smallest, the best and
    the largest batch. `precision` is "fp16" (see mixed_precision.py) or "fp32". The library's
    messages are appended to the file `log`; `timing_cache` is a file that plain TensorRT reads and
    extends. With an `example` (inputs by name, of any batch) an fp16 engine is compared with its
    float32 form before it is compiled, and the error is the entry's `parity`. `axes` are the
    smallest, the best and the largest length of the free heights and widths.

    The entry is {file (relative to `out`), version, compute_capabilities, profiles, precision,
    parity?}; `profiles` has every input, with the same shape three times where it has no batch.
    Raises UserError as `check_options` does, and (naming `log`) for a builder that refused the
    engine, crashed or was killed.
    """
    library, capabilities = _resolve(target, capabilities, batch, precision)
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    plan = folder / f"{name}.plan"
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as making:
        job = _Job(
            target,
            tuple(capabilities),
            {BATCH: batch, **(axes or {})},
            precision,
            str(onnx_file),
            os.path.join(making, plan.name),
            None if timing_cache is None else str(timing_cache),
            _saved(example, Path(making)),
        )
        result = _in_process(job, name, Path(making), log)
        os.replace(job.plan, plan)
    entry = {
        "file": f"{target}/{plan.name}",
        "version": library.__version__,
        "compute_capabilities": list(capabilities),
        "profiles": result["profiles"],
        "precision": precision,
        **_parity(result["error"]),
    }
    return Compiled(entry, time.perf_counter() - start, result["peak_bytes"])


def _saved(example: Mapping[str, np.ndarray] | None, making: Path) -> str | None:
    """The file that the `example` is saved in."""
    if example is None:
        return None
    file = making / "example.npz"
    arrays: dict[str, Any] = dict(example)
    np.savez(file, **arrays)
    return str(file)


def _parity(error: float | None) -> dict[str, Any]:
    if error is None:
        return {}
    return {"parity": {"tolerance": HALF_TOLERANCE, "max_relative_error": error}}


def check_options(
    target: str, capabilities: Sequence[str], batch: tuple[int, int, int], precision: str
) -> Sequence[str]:
    """The compute capabilities that `compile_plan` would compile for.

    Raises the UserError that compile_plan would, before anything long is begun: for an unknown
    target or precision, a library that is not installed, a capability that it does not compile for,
    plain TensorRT without a GPU, and a batch that is not MIN <= OPT <= MAX.
    """
    return _resolve(target, capabilities, batch, precision)[1]


def _resolve(
    target: str, capabilities: Sequence[str], batch: tuple[int, int, int], precision: str
) -> tuple[Any, Sequence[str]]:
    """The library, and the capabilities to compile for."""
    if target not in PLAN_TARGETS:
        raise UserError(f"`target` of a plan must be {' or '.join(PLAN_TARGETS)}, got {target!r}.")
    if precision not in PRECISIONS:
        raise UserError(
            f"Plans compute in {' or '.join(PRECISIONS)}, not in {precision}; int8 engines are for "
            "CPUs: build them as a bundle of their own."
        )
    smallest, best, largest = batch
    if not 1 <= smallest <= best <= largest <= _LARGEST_BATCH:
        raise UserError(
            "`batch` must be the smallest, the best and the largest batch, in this order and from "
            f"1 to {_LARGEST_BATCH}, got {smallest}, {best} and {largest}."
        )
    library = _library(target)
    capabilities = _members(capabilities)
    if target == "tensorrt-rtx":
        return library, _known_to_rtx(library, capabilities)
    return library, _around_the_gpu_here(capabilities)


def _members(names: Sequence[str]) -> list[str]:
    """Compute capabilities, without repetition, given by themselves or by their family."""
    found: dict[str, None] = {}
    for name in names:
        if name not in FAMILIES and not re.fullmatch(r"sm\d+", name):
            raise UserError(
                "`compute_capability` must be like sm89 (for 8.9), or one of "
                f"{', '.join(FAMILIES)}; got {name!r}."
            )
        found |= dict.fromkeys(FAMILIES.get(name, (name,)))
    return list(found)


def _library(target: str) -> Any:
    """TensorRT's module, which has no types; the one place that imports it."""
    try:
        return importlib.import_module(PLAN_TARGETS[target])
    except (ImportError, OSError) as error:
        raise UserError(
            f"{target} cannot be loaded ({_sentence(str(error))}); run `pip install {target}`."
        ) from error


def _known_to_rtx(library: Any, capabilities: Sequence[str]) -> Sequence[str]:
    known = [n.lower() for n in library.ComputeCapability.__members__ if n.startswith("SM")]
    for capability in capabilities:
        if capability not in known:
            raise UserError(
                f"tensorrt-rtx {library.__version__} does not compile for {capability}, only for "
                f'{", ".join(known)}; for another GPU, build there with `target="tensorrt"`.'
            )
    if capabilities:
        return capabilities
    here = _capability_here()
    return [here] if here is not None and here in known else RTX_DEFAULT


def _around_the_gpu_here(capabilities: Sequence[str]) -> Sequence[str]:
    here = _capability_here()
    if here is None:
        raise UserError(
            "Plain TensorRT compiles for the GPU of the machine, and this machine has none; build "
            'with `target="tensorrt-rtx"`, or on a machine with the GPU.'
        )
    wanted = list(capabilities) or [here]
    if here not in wanted or (wanted != [here] and min(map(_number, wanted)) < _AMPERE):
        raise UserError(
            f"Plain TensorRT compiles for this machine's {here}, or for several GPUs from "
            f"sm{_AMPERE} on that include it, not for {', '.join(wanted)}; change "
            "`compute_capability`, or build on a machine with the GPU."
        )
    return wanted


def _number(capability: str) -> int:
    return int(capability.removeprefix("sm"))


def _capability_here() -> str | None:
    """The first GPU's compute capability like "sm89", or None."""
    try:
        runtime = importlib.import_module("cuda.bindings.runtime")
    except ImportError:
        return None
    version = []
    for part in ("Major", "Minor"):
        attribute = getattr(runtime.cudaDeviceAttr, f"cudaDevAttrComputeCapability{part}")
        status, value = runtime.cudaDeviceGetAttribute(attribute, 0)
        if status != runtime.cudaError_t.cudaSuccess:
            return None
        version.append(str(value))
    return f"sm{''.join(version)}"


def _in_process(job: _Job, name: str, making: Path, log: Path) -> dict[str, Any]:
    """Run the job in a process and return its result; UserError if there is none."""
    asked, answered = making / "job.json", making / "result.json"
    asked.write_text(json.dumps(asdict(job)))
    with log.open("a", encoding="utf-8") as lines:
        print(f"=== {name} for {job.target} {' '.join(job.capabilities)}", file=lines, flush=True)
        process = subprocess.run(
            [sys.executable, "-m", __name__, str(asked), str(answered)],
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=subprocess.STDOUT,
            check=False,
        )
    result = json.loads(answered.read_text()) if answered.exists() else {"reason": None}
    if process.returncode == 0 and "profiles" in result:
        return result
    raise UserError(
        f"{job.target} did not compile the {name}: {_why(process.returncode, result['reason'])}; "
        f'the log is {log.resolve()}. Leave out `target="{job.target}"` to build a bundle without '
        "these plans."
    )


def _why(code: int, reason: str | None) -> str:
    """Why a builder ended, for the middle of a sentence."""
    if reason is not None:
        return reason
    if code == -signal.SIGKILL:
        return "the builder was killed, most likely because memory ran out"
    if code < 0:
        return f"the builder crashed ({signal.Signals(-code).name})"
    return f"the builder stopped with exit code {code}"


def _build(job: _Job) -> dict[str, Any]:
    """Build one plan in this process: {profiles, error, peak_bytes}, or {reason} if refused."""
    source, error = Path(job.onnx), None
    if job.precision == "fp16":
        from synfer_rt.export.tensorrt.mixed_precision import compute_half, error_of_half

        half = Path(job.plan).with_suffix(".onnx")
        compute_half(source, half)
        if job.example is not None:
            with np.load(job.example) as example:
                error = error_of_half(source, half, dict(example))
            if not error <= HALF_TOLERANCE:
                return {
                    "reason": f"in float16 it differs by {error:.1e} of its largest value, more "
                    f'than {HALF_TOLERANCE:.1e}; build with `precision="fp32"`'
                }
        source = half
    profiles = _compile(_library(job.target), job, source)
    if isinstance(profiles, str):
        return {"reason": _sentence(profiles)}
    return {"profiles": profiles, "error": error, "peak_bytes": peak_bytes()}


def _compile(trt: Any, job: _Job, source: Path) -> dict[str, dict[str, list[int]]] | str:
    """Write the plan of an ONNX file; its profiles, or the library's reason for refusing."""
    errors: list[str] = []

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(message)
            if severity != trt.ILogger.VERBOSE:
                print(severity.name, message, flush=True)

    builder_log = Log()
    builder = trt.Builder(builder_log)
    try:
        network = tensorrt_library.parsed(trt, builder, source, builder_log)
    except ValueError as error:
        return str(error)
    config = tensorrt_library.float32_config(trt, builder)
    profiles = _add_profiles(builder, network, config, job)
    _set_capabilities(trt, config, job)
    timed = None if job.target == "tensorrt-rtx" else job.timing_cache
    if timed is not None:
        known = Path(timed).read_bytes() if Path(timed).exists() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return errors[-1] if errors else "the library gave no reason"
    Path(job.plan).write_bytes(memoryview(plan))
    if timed is not None:
        Path(timed).parent.mkdir(parents=True, exist_ok=True)
        learnt = Path(f"{timed}.{os.getpid()}")
        learnt.write_bytes(memoryview(config.get_timing_cache().serialize()))
        os.replace(learnt, timed)
    return profiles


def _add_profiles(
    builder: Any, network: Any, config: Any, job: _Job
) -> dict[str, dict[str, list[int]]]:
    """Give every input its smallest, best and largest shape, and return these."""
    profiles, profile = {}, builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shapes = [
            [
                job.free[tensor.get_dimension_name(k)][j] if n == -1 else n
                for k, n in enumerate(tensor.shape)
            ]
            for j in range(3)
        ]
        profiles[tensor.name] = dict(zip(("min", "opt", "max"), shapes, strict=True))
        if -1 in tensor.shape:
            profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    return profiles


def _set_capabilities(trt: Any, config: Any, job: _Job) -> None:
    if job.target == "tensorrt-rtx":
        tensorrt_library.for_capabilities(trt, config, job.capabilities)
    elif len(job.capabilities) > 1:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _sentence(message: str) -> str:
    """A library's message, for the middle of a sentence."""
    return " ".join(message.split())[:_REASON_LENGTH].rstrip(". ")


def _main(asked: str, answered: str) -> None:
    job = _Job(**json.loads(Path(asked).read_text()))
    Path(answered).write_text(json.dumps(_build(job)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
