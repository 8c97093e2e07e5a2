"""Compare a CUDA engine with the engine that it was made from, both on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synfer_rt.backends.parity import batches, references
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.cuda import NEXT_STEP, STEP, TABLES
from synfer_rt.data.pixels import finite, in_8_bits, sound
from synfer_rt.errors import UserError
from synfer_rt.export.cuda.reference import write_reference
from synfer_rt.export.sentences import first_line

TOLERANCES = {"fp16": 2e-2, "fp32": 2e-4}
"""The largest error that rounding explains, by the precision that a CUDA engine computes in."""

Arrays = dict[str, np.ndarray]

_STEP = 1
"""The row of the tables that is compared."""


def compared_batches(bundle: Bundle, name: str) -> tuple[int, ...]:
    """The batches at which the CUDA engine of the engine `name` is compared with it."""
    return batches(bundle.image_size, name)[:2]


def max_relative_error(bundle: Bundle, name: str, file: Path) -> float:
    """The largest error of the CUDA engine in `file`, which is in the bundle's directory.

    It is the largest difference from the bundle's engine `name`, relative to the output's largest
    value, over all outputs and batches of random inputs, and over another size if the bundle has
    other sizes. Soundness and 8-bit pixels are held against the decoder's own images. NaN or
    infinite where an output is, or has another shape. Raises UserError if it cannot run.
    """
    given, wanted = references(bundle, name, compared_batches(bundle, name))
    found = _run(file, [_with_tables(arrays) for arrays in given])
    errors = [
        _relative(outputs[key], expected)
        for outputs, plain in zip(found, wanted, strict=True)
        for key, expected in _expected(plain, outputs).items()
    ]
    return float(np.max(errors))  # unlike max(), it returns NaN if there is one


def _run(file: Path, given: list[Arrays]) -> list[Arrays]:
    """The outputs of a CUDA engine on the CPU, with every operator's result rounded as on a GPU."""
    import onnxruntime

    reference = file.with_name(f".{file.name}.reference")
    try:
        write_reference(file, reference)
        options = onnxruntime.SessionOptions()
        options.enable_cpu_mem_arena = False  # it would keep the largest batch's activations
        session = onnxruntime.InferenceSession(
            str(reference), options, providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        return [
            dict(zip(names, map(np.asarray, session.run(None, arrays)), strict=True))
            for arrays in given
        ]
    except Exception as error:  # the runtime's exceptions share no base class but this
        raise UserError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run {file.name} ({first_line(error)})."
        ) from error
    finally:
        reference.unlink(missing_ok=True)


def _with_tables(arrays: Arrays) -> Arrays:
    """The inputs of a CUDA engine: its tables have another step before the one that is compared."""
    given = {TABLES.get(name, name): array for name, array in arrays.items()}
    tables = [TABLES[name] for name in arrays if name in TABLES]
    for name in tables:
        given[name] = np.stack([given[name] + 1, given[name]]).astype(np.float32)
    return given | ({STEP.name: np.array(_STEP)} if tables else {})


def _expected(plain: Arrays, found: Arrays) -> Arrays:
    """What a CUDA engine should return where the engine returns `plain`."""
    expected = dict(plain)
    if NEXT_STEP.name in found:
        expected[NEXT_STEP.name] = np.array(_STEP + 1)
    if "pixels" in found:
        expected["images"] = finite(plain["images"])
        expected["pixels"] = in_8_bits(finite(found["images"]))
        expected["sound"] = sound(found["images"])
    return expected


def _relative(found: np.ndarray, wanted: np.ndarray) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    scale = np.abs(wanted).max(initial=0.0)
    return float(np.abs(found - wanted).max(initial=0.0) / (scale if scale > 0 else 1.0))
