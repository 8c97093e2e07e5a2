"""OpenVINO on the CPU, from a bundle's ONNX files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np

from synfer_rt.backends.caches import cache_directory
from synfer_rt.backends.engine import Value, engine_failures, first_line, to_numpy
from synfer_rt.backends.runtimes import BackendStatus
from synfer_rt.bundle import Bundle, EngineSpec
from synfer_rt.bundle.engine_specs import DENOISER, denoises
from synfer_rt.errors import UserError

NAME = "openvino-cpu"
_PRODUCTS = (
    *("Convolution", "ConvolutionBackpropData", "MatMul"),
    *("GroupConvolution", "GroupConvolutionBackpropData"),
)
_STEPPED = ("next_latents", "next_history")
"""What the solver's step makes of a denoiser's prediction."""
_MOST_SHAPES = 2
"""The number of input shapes for which an engine stays compiled; each has its own weights."""


class OpenVinoEngine:
    """One ONNX file, compiled for each shape of its inputs. See `backends.engine.Engine`.

    A fixed shape costs a compilation. It makes the denoiser faster than ONNX Runtime; a dynamic
    shape makes it slower. Compiled models are kept in `cache`.

    The graph is computed in `precision`, "f32" or "bf16" (see precision_of), but not the solver's
    step: its coefficients are large and cancel each other, for which eight bits are too few. A
    denoiser's step is taken outside the graph, always in float32.
    """

    def __init__(
        self,
        spec: EngineSpec,
        file: Path,
        threads: int,
        precision: str,
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
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # parallel runs would be pinned to the same cores
        }
        if cache is not None:
            self._properties["CACHE_DIR"] = str(cache)
        try:
            with _without_links(file, cache) as plain:
                self._model = read_model(plain, self._core)
        except Exception as error:  # the runtime's exceptions share no base class but this
            raise UserError(
                f"{file} cannot be loaded by {NAME} ({first_line(error)}); build the bundle again "
                "with `synfer-rt build-engines`."
            ) from None
        self._steps_outside = denoises(spec.name)
        if self._steps_outside:
            for output in self._model.outputs:
                if not output.get_names().isdisjoint(_STEPPED):
                    self._model.remove_result(output.get_node())
        self._requests: dict[tuple[tuple[int, ...], ...], Any] = {}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name."""
        given = {
            tensor.name: np.asarray(to_numpy(inputs[tensor.name])) for tensor in self.spec.inputs
        }
        with engine_failures(self.spec.name, NAME):
            request = self._request(
                {
                    tensor.name: [
                        length if isinstance(size, str) else size
                        for size, length in zip(tensor.shape, given[tensor.name].shape, strict=True)
                    ]
                    for tensor in self.spec.inputs
                }
            )
            results = request.infer(given, share_inputs=True)
            # A tensor that goes through Identity has the names of both.
            ports = {name: port for port in request.model_outputs for name in port.get_names()}
            names = [tensor.name for tensor in self.spec.outputs if tensor.name in ports]
            outputs = {name: results[ports[name]] for name in names}
        if self._steps_outside:
            outputs = {**_solver_step(given, outputs["prediction"]), **outputs}
        return outputs

    def run_on_device(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """The same as `run`: the device's memory is the host's."""
        return self.run(inputs)

    def _request(self, shapes: Mapping[str, list[int]]) -> Any:
        """The engine compiled for inputs of `shapes`; the last ones used are kept."""
        key = tuple(map(tuple, shapes.values()))
        request = self._requests.pop(key, None)
        if request is None:
            if len(self._requests) == _MOST_SHAPES:
                del self._requests[next(iter(self._requests))]
            model = self._model.clone()
            model.reshape(dict(shapes))
            compiled = self._core.compile_model(model, "CPU", self._properties)
            request = compiled.create_infer_request()
        self._requests[key] = request
        return request


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


def precision_of(engine: str, *, bfloat16: bool) -> str:
    """The precision of an engine: bf16 for denoisers, which take most time, if the CPU can.

    `bfloat16` says whether the CPU can.
    """
    return "bf16" if bfloat16 and denoises(engine) else "f32"


def read_model(file: Path, core: Any) -> Any:
    """An ONNX file as OpenVINO's model, with shared weights separated by their use.

    Where products of several kinds share a weight, as in a gradient's graph, OpenVINO (seen in
    2026.4) may prepare the weight for the first product and use it for all of them: that of a
    convolution for the transposed convolution, a square matrix for the product with its transpose.
    So each kind of use gets its own copy of the weight.
    """
    from openvino import op

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


def open_engine(bundle: Bundle, name: str, backend: str, threads: int) -> OpenVinoEngine:
    """See `Runtime.open_engine`."""
    spec = bundle.engines[name]
    precision = precision_of(name, bfloat16=has_bfloat16())
    cache = cache_directory("openvino", bundle)
    return OpenVinoEngine(spec, bundle.path / spec.file, threads, precision, cache)


def run_file(file: Path, inputs: Mapping[str, np.ndarray], backend: str) -> np.ndarray:
    """See `Runtime.run_file`."""
    import openvino

    core = cast(Any, openvino.Core())
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(core.read_model(file), "CPU", exact)(dict(inputs))[0]


def computes(bundle: Bundle, backend: str) -> tuple[str, str, str]:
    """See `Runtime.computes`."""
    half = precision_of(DENOISER, bfloat16=has_bfloat16()) == "bf16"
    return ("bf16" if half else "fp32"), f"openvino {metadata.version('openvino')}", "cpu"


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
