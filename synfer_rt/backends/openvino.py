"""OpenVINO on the CPU, from a bundle's ONNX files."""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np

from synfer_rt.backends import streams
from synfer_rt.backends.caches import cache_directory
from synfer_rt.backends.engine import Value, engine_failures, first_line, to_numpy
from synfer_rt.backends.openvino_cache import CompiledModels
from synfer_rt.backends.openvino_group_norm import by_channel
from synfer_rt.backends.runtimes import BackendStatus
from synfer_rt.backends.streams import Arrays
from synfer_rt.bundle import Bundle, EngineSpec
from synfer_rt.bundle.engine_specs import BATCH, DENOISER, denoises
from synfer_rt.errors import UserError

NAME = "openvino-cpu"
_PRODUCTS = (
    *("Convolution", "ConvolutionBackpropData", "MatMul"),
    *("GroupConvolution", "GroupConvolutionBackpropData"),
)
_STEPPED = ("next_latents", "next_history")
"""What the solver's step makes of a denoiser's prediction."""
_OF_IMAGES = ("decoder", "encoder")
"""Engines whose layers are as large as images, of which reordering takes long."""
_MOST_SHAPES = 2
"""The number of input shapes for which an engine stays compiled; each has its own weights."""
_ONE_AT_A_TIME = threading.Lock()
"""Held while a model is read, compiled or exported, for which OpenVINO needs one thread.

Its Python package (seen in 2026.4) waits for ever when two threads ask for the values of a constant
for the first time. Exporting sets the locale of the whole process to C and back, and two threads at
once can leave it at C, in which Python reads and writes ASCII alone."""


class OpenVinoEngine:
    """One ONNX file, compiled for each shape of its inputs. See `backends.engine.Engine`.

    A fixed shape costs a compilation. It makes the denoiser faster than ONNX Runtime; a dynamic
    shape makes it slower. Compiled models are kept in `cache` (openvino_cache.py), and the file is
    read only if one is missing there. The rows of a call are divided among streams (streams.py),
    which compute at once; calls take turns.

    The graph is computed in `precision`, "f32" or "bf16" (see precision_of), but not the solver's
    step: its coefficients are large and cancel each other, for which eight bits are too few. A
    denoiser's step is taken outside the graph, always in float32.

    `positions` are the latent positions of an image.
    """

    def __init__(
        self,
        spec: EngineSpec,
        file: Path,
        threads: int,
        precision: str,
        positions: int,
        cache: Path | None = None,
    ) -> None:
        import openvino

        self.spec = spec
        self.backend = NAME
        self.precision = precision
        self._core = openvino.Core()
        self._properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # parallel runs would be pinned to the same cores
        }
        self._steps_outside = denoises(spec.name)
        self._file, self._cache = file, cache
        self._threads, self._positions = threads, positions
        self._requests: dict[tuple[tuple[int, ...], ...], list[Any]] = {}
        self._turn = threading.Lock()
        self._kept = CompiledModels(cache, file, self._core)
        if not self._kept.known:
            with _ONE_AT_A_TIME:
                _ = self._model  # whether the runtime takes it shows now

    @cached_property
    def _model(self) -> Any:
        """The file as a model, without the solver's step and with its layers as they run best."""
        file = self._file
        try:
            with _without_links(file, self._cache) as plain:
                model = read_model(plain, self._core)
        except Exception as error:  # the runtime's exceptions share no base class but this
            raise UserError(
                f"{file} cannot be loaded by {NAME} ({first_line(error)}); build the bundle again "
                "with `synfer-rt build-engines`."
            ) from None
        # Means that are rounded to bfloat16 would move every pixel.
        if self.spec.name in _OF_IMAGES and self.precision == "f32":
            by_channel(model)
        if self._steps_outside:
            for output in model.outputs:
                if not output.get_names().isdisjoint(_STEPPED):
                    model.remove_result(output.get_node())
        return model

    def compile(self, rows: int) -> None:
        """Compile now for calls of `rows` images, unless the interface leaves other sizes open."""
        shapes = [[rows if size == BATCH else size for size in t.shape] for t in self.spec.inputs]
        if any(isinstance(size, str) for shape in shapes for size in shape):
            return
        given = {
            tensor.name: np.broadcast_to(np.zeros((), tensor.dtype), cast("list[int]", shape))
            for tensor, shape in zip(self.spec.inputs, shapes, strict=True)
        }
        with self._turn, engine_failures(self.spec.name, NAME):
            self._requests_for(given)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name."""
        given = {
            tensor.name: np.asarray(to_numpy(inputs[tensor.name])) for tensor in self.spec.inputs
        }
        with self._turn, engine_failures(self.spec.name, NAME):
            outputs = self._outputs(given)
        if self._steps_outside:
            outputs = {**_solver_step(given, outputs["prediction"]), **outputs}
        return outputs

    def run_on_device(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """The same as `run`: the device's memory is the host's."""
        return self.run(inputs)

    def _outputs(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The graph's outputs by name."""
        rows = streams.rows_of(given, self.spec.inputs)
        requests, parts = self._requests_for(given)
        with ExitStack() as under_way:  # what has begun ends before its inputs are let go
            for request, part in zip(requests, parts, strict=True):
                request.start_async(part, share_inputs=True)
                under_way.callback(request.wait)
        # A tensor that goes through Identity has the names of both.
        ports = {name: port for port in requests[0].model_outputs for name in port.get_names()}
        names = [tensor.name for tensor in self.spec.outputs if tensor.name in ports]
        # A request writes its outputs where it did before, so the caller gets copies.
        found = [{name: r.get_tensor(ports[name]).data for name in names} for r in requests]
        return streams.joined(found, rows)

    def _requests_for(self, given: Mapping[str, np.ndarray]) -> tuple[list[Any], list[Arrays]]:
        """A request for each stream, and its inputs."""
        rows = streams.rows_of(given, self.spec.inputs)
        count = streams.most(rows, self._threads, self._positions)
        parts = streams.parts(given, self.spec.inputs, count)
        return self._compiled(parts[0], count), parts

    def _compiled(self, part: Mapping[str, np.ndarray], count: int) -> list[Any]:
        """Requests of the engine, one for each stream, for inputs of the shapes of `part`.

        Those of the last shapes used are kept.
        """
        shapes = {
            tensor.name: [
                length if isinstance(size, str) else size
                for size, length in zip(tensor.shape, part[tensor.name].shape, strict=True)
            ]
            for tensor in self.spec.inputs
        }
        key = ((count,), *map(tuple, shapes.values()))
        requests = self._requests.pop(key, None)
        if requests is None:
            if len(self._requests) == _MOST_SHAPES:
                del self._requests[next(iter(self._requests))]
            properties = self._properties | {"NUM_STREAMS": count}
            compiled = self._kept.find(shapes, properties)
            if compiled is None:
                compiled = self._made(shapes, properties)
            requests = [compiled.create_infer_request() for _ in range(count)]
        self._requests[key] = requests
        return requests

    def _made(self, shapes: dict[str, list[int]], properties: dict[str, Any]) -> Any:
        """The model, compiled now, and kept for the next time."""
        with _ONE_AT_A_TIME:
            model = self._model.clone()
            model.reshape(shapes)
            compiled = self._core.compile_model(model, "CPU", properties)
            self._kept.keep(compiled, shapes, properties)
        return compiled


@contextmanager
def _without_links(file: Path, place: Path | None) -> Generator[Path]:
    """An engine's file in a directory where neither it nor any weights file is a symbolic link.

    OpenVINO does not read weights through symbolic links, and in the Hugging Face cache every file
    is one. While the model is read, the files are hard links below `place`, or copies if that is on
    another disk. What OpenVINO has mapped by then stays mapped.
    """
    files = [file, *file.parent.glob("*.data")]
    if not any(other.is_symlink() for other in files):
        yield file
        return
    with TemporaryDirectory(prefix="links-", dir=place, ignore_cleanup_errors=True) as directory:
        for other in files:
            plain = Path(directory, other.name)
            try:
                os.link(other.resolve(), plain)
            except OSError:  # another disk, or one without hard links
                shutil.copyfile(other, plain)
        yield Path(directory, file.name)


def version() -> str:
    """The installed OpenVINO's version, such as "2026.4.1"."""
    import openvino

    return openvino.__version__.partition("-")[0]


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def precision_of(spec: EngineSpec, *, bfloat16: bool) -> str:
    """The precision that an engine is computed in; `bfloat16` says whether the CPU can.

    Denoisers, which take most time, are computed in bf16 unless the bundle's measurement says that
    one deviates too far; the decoder, the encoder and the annotators only if it says that they do
    not. Gradients need float32.
    """
    measured = spec.parity_openvino and spec.parity_openvino.bfloat16
    fits = denoises(spec.name) if measured is None else measured.holds
    return "bf16" if bfloat16 and fits and may_round(spec.name) else "f32"


def may_round(engine: str) -> bool:
    """Whether an engine may be computed in bf16: each but the guides and the conditioner.

    The conditioner runs once for an image, and all steps start from what it says.
    """
    return engine != "conditioner" and not engine.startswith("guide.")


def read_model(file: Path, core: Any) -> Any:
    """An ONNX file as OpenVINO's model, with shared weights separated by their use.

    Where products of several kinds share a weight, as in a gradient's graph, OpenVINO (seen in
    2026.4) may prepare the weight for the first product and use it for all of them: that of a
    convolution for the transposed convolution, a square matrix for the product with its transpose.
    So each kind of use gets its own copy of the weight.
    """
    from openvino import op

    _ = op.Constant(np.zeros(1, np.float32)).data  # see _ONE_AT_A_TIME
    model = core.read_model(file)
    uses: dict[int, set[str]] = {}
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        weight, way = _weight(node) if kind in _PRODUCTS else (None, [])
        if weight is None:
            continue
        use = str((kind, node.get_attributes().get("transpose_b"), way))
        known = uses.setdefault(weight.data.ctypes.data, set())
        if known and use not in known:
            values = weight.data.astype(np.float32)
            for step, argument in way:
                values = getattr(values, step)(argument)
            copy = op.Constant(np.ascontiguousarray(values), shared_memory=False)
            node.input(1).replace_source_output(copy.output(0))
        known.add(use)
    return model


def _weight(product: Any) -> tuple[Any, list[tuple[str, list[int]]]]:
    """The constant that a product multiplies by, or None, and the operations in between.

    These are named as in numpy. Conversion from float16 to float32 is left out.
    """
    node = product.input_value(1).get_node()
    way: list[tuple[str, list[int]]] = []
    while (kind := node.get_type_name()) in ("Convert", "Transpose", "Reshape"):
        if kind == "Reshape":
            if node.get_output_partial_shape(0).is_dynamic:
                return None, []
            way.insert(0, ("reshape", list(node.get_output_shape(0))))
        elif kind == "Transpose":
            axes = node.input_value(1).get_node()
            if axes.get_type_name() != "Constant":
                return None, []
            way.insert(0, ("transpose", [int(axis) for axis in axes.data]))
        node = node.input_value(0).get_node()
    floating = node.get_type_name() == "Constant" and node.get_element_type().is_real()
    return (node if floating else None), way


def _solver_step(inputs: Mapping[str, np.ndarray], prediction: np.ndarray) -> dict[str, np.ndarray]:
    """`coefficients @ [latents, prediction, history]`: the next latents and the next history."""
    latents = inputs["latents"]
    stack = np.concatenate([latents[:, None], prediction[:, None], inputs["history"]], 1)
    with np.errstate(over="ignore", invalid="ignore"):  # the sampler detects broken images
        rows = inputs["coefficients"] @ stack.reshape(*stack.shape[:2], -1)
    rows = rows.reshape(*rows.shape[:2], *latents.shape[1:])
    return dict(zip(_STEPPED, (rows[:, 0], rows[:, 1:]), strict=True))


def open_engine(
    bundle: Bundle, name: str, backend: str, threads: int, rows: int | None
) -> OpenVinoEngine:
    """See `Runtime.open_engine`."""
    spec = bundle.engines[name]
    precision = precision_of(spec, bfloat16=has_bfloat16())
    cache = cache_directory("openvino", bundle)
    positions = math.prod(bundle.latent.shape[1:])
    file = bundle.path / spec.file
    engine = OpenVinoEngine(spec, file, threads, precision, positions, cache)
    if rows is not None:
        engine.compile(rows)
    return engine


def run_file(file: Path, inputs: Mapping[str, np.ndarray], backend: str) -> np.ndarray:
    """See `Runtime.run_file`."""
    import openvino

    core = cast(Any, openvino.Core())
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(core.read_model(file), "CPU", exact)(dict(inputs))[0]


def computes(bundle: Bundle, backend: str) -> tuple[str, str, str]:
    """See `Runtime.computes`."""
    capable = has_bfloat16()
    rounded = [
        spec.name
        for spec in bundle.engines.values()
        if precision_of(spec, bfloat16=capable) == "bf16"
    ]
    others = [name for name in rounded if not denoises(name)]
    precision = "bf16" if DENOISER in rounded else "fp32"
    if others:
        precision += f", bf16 in {', '.join(others)}"
    return precision, f"openvino {metadata.version('openvino')}", "cpu"


def status(backend: str) -> BackendStatus:
    """Whether OpenVINO is installed and finds the CPU."""
    remedy = "run `pip install --force-reinstall openvino`"
    try:
        import openvino

        devices = openvino.Core().available_devices
    except ModuleNotFoundError:
        remedy = "run `pip install openvino`"
        return BackendStatus(backend, False, "openvino is not installed", remedy)
    except Exception as error:  # the runtime's exceptions share no base class but this
        return BackendStatus(backend, False, first_line(error), remedy)
    if "CPU" not in devices:
        return BackendStatus(backend, False, "OpenVINO does not know this CPU", remedy)
    return BackendStatus(backend, True, "works", "")
