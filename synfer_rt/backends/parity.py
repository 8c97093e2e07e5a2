"""Parity: whether OpenVINO computes the engines of a bundle as ONNX Runtime does.

Both read the same file. Their outputs differ by rounding, or because OpenVINO silently computes an
operator wrongly. The manifest records the deviation of each engine (`parity_openvino`), and the
choice of a backend depends on that record alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from synfer_rt.backends.opening import default_threads, open_engine
from synfer_rt.backends.openvino import (
    OpenVinoEngine,
    has_bfloat16,
    may_round,
    version,
)
from synfer_rt.backends.runtimes import status
from synfer_rt.bundle import Bundle, write_manifest
from synfer_rt.bundle.engine_specs import (
    BATCH,
    DENOISER,
    REUSING,
    STORING,
    EngineSpec,
    RuntimeParity,
    denoises,
)
from synfer_rt.errors import UserError

OPENVINO, REFERENCE = "openvino-cpu", "onnxruntime-cpu"
LARGE = 384 * 384
"""Larger images, in pixels, are computed at most two at once: on a CPU self-attention keeps a score
for each pair of positions, 2.1 GB for an image of 512x512 with guidance."""
_SMALL = 128 * 128
_TOLERANCES = {"fp32": 2e-4, "fp16": 2e-4, "int8": 0.2}
"""The largest error that rounding explains, by the precision of the weights. Both runtimes widen
float16 weights in the same way, but multiply int8 weights with different kernels."""
_BFLOAT16 = {DENOISER: 0.2, "decoder": 1 / 32, "encoder": 1 / 32}
_BFLOAT16_LABELS = 0.01
"""The same in bfloat16, which has eight bits: over all layers of a UNet, whose next steps correct
it; of the decoder, eight of 255 grey levels at the worst pixel; of annotators, whose labels count,
hardly more than rounding their results."""
_LEAST = 1e-30
"""Smaller probabilities count as this one."""

Arrays = dict[str, np.ndarray]


def measured(
    bundle: Bundle, report: Callable[[EngineSpec], None] = lambda spec: None, *, anew: bool = True
) -> Bundle:
    """The bundle with the parity of every engine on this OpenVINO in its manifest.

    No other file is written. `report` is called with each engine. Unless `anew`, measurements of
    the same version are kept. Raises UserError if OpenVINO does not work, or if the manifest cannot
    be written.
    """
    found = status(OPENVINO)
    if not found.works:
        raise UserError(f"OpenVINO does not work here: {found.reason}; {found.remedy}.")
    fields = {key: v for key, v in bundle.manifest.items() if key not in ("format", "files")}
    engines: dict[str, Any] = {}
    for name, spec in bundle.engines.items():
        entry = dict(bundle.manifest["engines"][name])
        known = spec.parity_openvino
        if anew or known is None or known.version != version():
            entry["parity_openvino"] = measure(bundle, name)
        engines[name] = entry
        report(replace(spec, parity_openvino=RuntimeParity.from_manifest(entry["parity_openvino"])))
    try:
        return write_manifest(bundle.path, {**fields, "engines": engines})
    except OSError as error:
        raise UserError(
            f"{bundle.path} cannot be written ({error.strerror or error}); copy the bundle to a "
            "directory that you own."
        ) from None


def measure(bundle: Bundle, name: str) -> dict[str, Any]:
    """The manifest's `parity_openvino` of an engine.

    `max_relative_error` is the largest difference from ONNX Runtime, relative to the output's
    largest value, over all batches of random inputs, and over another size if the bundle has other
    sizes. Probabilities are compared by their logarithms, since differences vanish close to 0 or 1.
    It is None if OpenVINO fails or returns NaN or infinity. If the CPU has bfloat16, `bf16`
    holds the same measurement of that for each engine that may be computed in it.
    """
    spec = bundle.engines[name]
    counts = batches(bundle.image_size, name)
    given, wanted = references(bundle, name, counts)
    entry: dict[str, Any] = {
        "version": version(),
        "tolerance": _TOLERANCES[spec.precision],
        "max_relative_error": _error(bundle, name, "f32", given, wanted),
        "batches": list(counts),
    }
    if has_bfloat16() and may_round(name):
        error = _error(bundle, name, "bf16", given, wanted)
        kind = DENOISER if denoises(name) else name
        tolerance = _BFLOAT16.get(kind, _BFLOAT16_LABELS)
        entry["bf16"] = {"tolerance": tolerance, "max_relative_error": error}
    return entry


def batches(image_size: tuple[int, int], name: str) -> tuple[int, ...]:
    """The batches at which an engine for images of `image_size` (H, W) is measured.

    Engines that classify images resize them first, so they take 24 of any size.
    """
    pixels = math.prod(image_size)
    if pixels <= _SMALL or name.startswith("classifier.") or name == "au-reader":
        return (1, 3, 24)
    return (1, 3) if pixels <= LARGE else (1, 2)


def references(
    bundle: Bundle, name: str, counts: Sequence[int]
) -> tuple[list[Arrays], list[Arrays]]:
    """Random inputs of an engine in batches of `counts`, and its outputs for each on ONNX Runtime.

    If the bundle has other sizes, a batch of 1 in another size comes last.
    """
    cases = [(bundle, count) for count in counts]
    if bundle.sizes is not None:
        cases.append((bundle.resized(bundle.sizes.other(bundle.image_size)), 1))
    given = [inputs(sized, name, count) for sized, count in cases]
    engine = open_engine(bundle, name, REFERENCE)
    return given, [engine.run(arrays) for arrays in given]


def inputs(bundle: Bundle, name: str, batch: int) -> Arrays:
    """Random inputs for a batch of an engine, distributed as in a run."""
    spec = bundle.engines[name]
    if name == REUSING:
        given = inputs(bundle, STORING, batch)
        given |= open_engine(bundle, STORING, REFERENCE).run(given)
        return {tensor.name: given[tensor.name] for tensor in spec.inputs}
    draws = np.random.default_rng(batch)
    lengths = {
        BATCH: batch,
        **dict(zip("HW", bundle.image_size, strict=True)),
        **dict(zip("hw", bundle.latent.shape[1:], strict=True)),
    }
    arrays: Arrays = {}
    conditioning = bundle.engines["conditioner"]
    if name != "conditioner" and {t.name for t in spec.inputs} & {
        t.name for t in conditioning.outputs
    }:
        conditioner = open_engine(bundle, "conditioner", REFERENCE)
        arrays = conditioner.run(inputs(bundle, "conditioner", batch))
    for tensor in spec.inputs:
        if tensor.name not in arrays:
            shape = tuple(lengths.get(str(size), size) for size in tensor.shape)
            arrays[tensor.name] = _drawn(bundle, tensor.name, shape, draws)
    if "text" in arrays and "strength" in arrays:
        # Moves are as long as the tokens, so that the engine's own share counts.
        arrays["strength"] = arrays["strength"] * np.linalg.norm(arrays["text"], axis=-1).mean()
    return {tensor.name: np.asarray(arrays[tensor.name], tensor.dtype) for tensor in spec.inputs}


def _drawn(
    bundle: Bundle, name: str, shape: tuple[Any, ...], draws: np.random.Generator
) -> np.ndarray:
    if name == "tokens":
        words = [f"a photo of a {label} face" for label in bundle.classes]
        texts = [text for i in range(shape[0]) for text in ("", words[i % len(words)])]
        return bundle.tokenize(texts).reshape(shape)
    if name == "images":
        return _images(shape, draws)
    if name == "aus":
        return draws.random(shape)
    if name in ("au_scale", "strength"):
        return draws.uniform(0.5, 1.5, shape)
    if name == "guidance":
        return draws.uniform(1, 5, shape)
    if name == "timestep":
        timesteps = bundle.trajectory().timesteps
        return np.array(timesteps[len(timesteps) // 2])
    if name == "clean":
        return np.array([0.8, -0.6])
    if name == "target":
        return draws.dirichlet(np.ones(shape[1]), shape[0])
    return draws.standard_normal(shape)


def _images(shape: tuple[int, ...], draws: np.random.Generator) -> np.ndarray:
    """Noise and smooth images in turn, of different brightness and contrast."""
    images = draws.random(shape)
    smooth = images[1::2]
    rows, columns = (np.linspace(0, np.pi, length) for length in shape[2:])
    waves = draws.uniform(0, 4, (2, *smooth.shape[:2], 1, 1))
    smooth[:] = 0.5 + 0.5 * np.cos(waves[0] * rows[:, None]) * np.cos(waves[1] * columns)
    scale = draws.uniform(0.3, 1, (len(images), 1, 1, 1))
    return scale * images + (1 - scale) * draws.random((len(images), 1, 1, 1))


def _error(
    bundle: Bundle, name: str, precision: str, given: list[Arrays], wanted: list[Arrays]
) -> float | None:
    """OpenVINO's largest deviation; None if it fails, or returns NaN or infinity."""
    spec, positions = bundle.engines[name], math.prod(bundle.latent.shape[1:])
    file, threads = bundle.path / spec.file, default_threads()
    errors: list[float] = []
    try:
        for case, arrays in zip(given, wanted, strict=True):
            # An engine that keeps other compiled shapes would take twice the memory.
            engine = OpenVinoEngine(spec, file, threads, precision, positions)
            errors += [
                difference(key, found, arrays[key]) for key, found in engine.run(case).items()
            ]
            del engine
    except UserError:
        return None
    worst = float(np.max(errors))  # unlike max(), it propagates NaN
    return worst if math.isfinite(worst) else None


def difference(output: str, found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference relative to the largest value; of probabilities by logarithms."""
    if found.shape != wanted.shape:
        return math.inf
    if output == "probabilities":
        found, wanted = (np.log(np.maximum(array, _LEAST)) for array in (found, wanted))
    scale = np.abs(wanted).max(initial=0.0)
    return float(np.abs(found - wanted).max(initial=0.0) / (scale if scale > 0 else 1.0))


def sentence(spec: EngineSpec) -> str | None:
    """A sentence on an engine that cannot run on OpenVINO; None for one that can."""
    parity = spec.parity_openvino
    if parity is None or parity.holds:
        return None
    return f"{spec.name} runs on ONNX Runtime: {reason(parity)}."


def reason(parity: RuntimeParity) -> str:
    """Why an engine does not run on OpenVINO, as part of a sentence."""
    if parity.max_relative_error is None:
        return f"OpenVINO {parity.version} fails to run it"
    return (
        f"OpenVINO {parity.version} computes it wrongly (off by {parity.max_relative_error:.1e} "
        "of its largest value)"
    )
