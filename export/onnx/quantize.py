"""Float engine -> static int8 (QDQ) engine, calibrated on the bundle's own trajectories."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass

from synfer_rt.backends import to_numpy
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.engine_specs import DENOISER, denoises
from synfer_rt.diffusion.solvers import HISTORY_SLOTS
from synfer_rt.errors import UserError
from synfer_rt.sampling.preparation import with_fresh_noise
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler

_BACKEND = "onnxruntime-cpu"
_SEED = 2**62
"""A seed that users do not use, so that calibration shares no sample with their runs."""
_PRODUCTS = ("Conv", "Gemm", "MatMul")
_DATA = frozenset({"latents", "images"})
_INLINE_BYTES = 1_500_000_000
_RAW = re.compile(r"conv_shortcut|samplers")
_UP_BLOCK = re.compile(r"\bup_blocks\.(\d+)\.")


def calibration_inputs(
    bundle: Bundle, engine: str, samples: int = 16, batch: int = 8
) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of `engine` (a denoiser or a classifier) as in sampling, by name, batch by batch.

    The bundle's engines sample `samples` default requests (every label, drawn prompts and AUs) on
    ONNX Runtime at its default settings, a denoiser its own inputs at every step. It costs as much
    as making that many images.
    """
    every, way = make_requests(bundle, seed=_SEED), bundle.trajectory()
    sampler = Sampler.of(bundle, _BACKEND)
    denoiser = sampler.engines[engine if denoises(engine) else DENOISER]
    for first in range(0, samples, batch):
        requests = every[first : min(first + batch, samples)]
        state = {name: to_numpy(value) for name, value in sampler.condition(requests).items()}
        state["guidance"] = np.array([r.guidance for r in requests], np.float32)
        state["latents"] = sampler.start(requests, way)
        shape = (len(requests), HISTORY_SLOTS, *bundle.latent.shape)
        state["history"] = np.zeros(shape, np.float32)
        keys = [(request.seed, request.index) for request in requests]
        for step, timestep in enumerate(way.timesteps):
            state |= {"timestep": np.asarray(timestep), "coefficients": way.coefficients[step]}
            if denoises(engine):
                yield {tensor.name: state[tensor.name] for tensor in bundle.engines[engine].inputs}
            outputs = denoiser.run(state)
            latents = with_fresh_noise(outputs["next_latents"], way, step, keys)
            state |= {"latents": to_numpy(latents), "history": outputs["next_history"]}
        if not denoises(engine):
            yield {"images": sampler.decode(state["latents"])}


def quantize(
    source: Path, out: Path, inputs: Iterable[Mapping[str, np.ndarray]], engine: str
) -> None:
    """Write the engine file `source` (weights float32, or float16 behind Casts) as int8 to `out`.

    Products with weights get int8 weights, symmetric and per output channel, and uint8
    activations, whose ranges are the smallest and largest values for `inputs`. Weights use seven
    bits: on CPUs without VNNI, sums of two 8-bit products would saturate. The format is for CPUs;
    TensorRT takes neither uint8 nor int32 biases. The products that `_delicate` returns stay float,
    with weights in float16. `engine` is the name in messages. Inputs, outputs, the free batch and
    the opset do not change. Raises UserError without any input, and for an engine without a product
    to quantize.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

    from synfer_rt.export.onnx.forward_graph import save, store_half

    model = ir.load(source)
    _widen_weights(model)
    products = _name_nodes(model.graph)
    kept = _delicate(model.graph)
    if products <= kept:
        raise UserError(
            f'The {engine} has no weights to quantize; build it with `precision="fp16"`.'
        )
    given = (dict(batch) for batch in inputs)
    first = next(given, None)
    if first is None:
        raise UserError(f"There are no inputs to calibrate the {engine} on; give at least one.")
    # The quantizer warns without its own pre-processing, whose fusions other runtimes cannot read.
    model.metadata_props["onnx.quant.pre_process"] = "onnxruntime.quant"
    large = _bytes(model.graph) > _INLINE_BYTES
    with TemporaryDirectory(prefix=".quantizing-", dir=out.parent) as making:
        plain, quantized = Path(making, "plain.onnx"), Path(making, "quantized.onnx")
        ir.save(model, plain, external_data=f"{plain.name}.data" if large else None)
        del model
        quantize_static(
            plain,
            quantized,
            _reader(first, given),
            op_types_to_quantize=list(_PRODUCTS),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(kept),
            use_external_data_format=large,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )
        result = ir.load(quantized)
        ClearMetadataAndDocStringPass()(result)
        result.metadata_props.clear()
        result.graph.metadata_props.clear()
        result.producer_name = result.producer_version = None
        store_half(result.graph)
        save(result, out)


def _widen_weights(model: ir.Model) -> None:
    """Turn float16 weights behind Casts into float32 weights, in place; converted when written."""
    graph = model.graph
    for node in list(graph):
        stored = node.inputs[0] if node.op_type == "Cast" else None
        if stored is None or not stored.is_initializer() or stored.dtype != ir.DataType.FLOAT16:
            continue
        old, tensor = node.outputs[0], stored.const_value
        if tensor is None or old.dtype != ir.DataType.FLOAT:
            continue
        name, old.name = old.name, None
        value = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=old.shape,
            const_value=_wide(tensor, name or ""),
        )
        ir.convenience.replace_all_uses_with(old, value)
        graph.register_initializer(value)
        graph.remove(node, safe=True)
    RemoveUnusedNodesPass()(model)


def _wide(tensor: ir.TensorProtocol, name: str) -> ir.LazyTensor:
    return ir.LazyTensor(
        lambda: ir.Tensor(tensor.numpy().astype(np.float32), name=name),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape(tensor.shape.numpy()),
        name=name,
    )


def _name_nodes(graph: ir.Graph) -> set[str]:
    """Give every node a name of its own, and return the names of the products."""
    for i, node in enumerate(graph):
        node.name = f"{node.op_type}_{i}"
    return {str(node.name) for node in graph if node.op_type in _PRODUCTS}


def _delicate(graph: ir.Graph) -> set[str]:
    """Names of the products that stay float, because their measured share in the error is large.

    These are products without weights (in attention, and the solver's matrix); the first and the
    last product, unless there are no others; products that do not depend on the latents or images,
    such as the embedding of the timestep and the keys and values of the text (few rows, little
    work); products that read the residual stream without a normalisation before them (shortcuts,
    resampling), whose range is widest; and the last block of a UNet, whose errors later layers do
    not reduce.
    """
    data = {value for value in graph.inputs if value.name in _DATA}
    weights: dict[str, str] = {}
    kept = set()
    for node in graph:
        name, weight = str(node.name), _weight(node)
        sees = any(value in data for value in node.inputs)
        if sees:
            data.update(node.outputs)
        if node.op_type not in _PRODUCTS:
            continue
        if weight is None or not sees:
            kept.add(name)
        else:
            weights[name] = weight
    ups = [int(block) for weight in weights.values() for block in _UP_BLOCK.findall(weight)]
    for name, weight in weights.items():
        block = _UP_BLOCK.search(weight)
        if _RAW.search(weight) or (block and int(block[1]) == max(ups)):
            kept.add(name)
    ends = {*list(weights)[:1], *list(weights)[-1:]}
    return kept | ends if set(weights) - ends else kept


def _weight(node: ir.Node) -> str | None:
    """The name of a product's constant factor, or None."""
    factor = node.inputs[1] if len(node.inputs) > 1 else None
    return factor.name if factor is not None and factor.is_initializer() else None


def _bytes(graph: ir.Graph) -> int:
    sizes = (math.prod(v.shape.numpy()) for v in graph.initializers.values() if v.shape is not None)
    return 4 * sum(sizes)


def _reader(first: dict[str, np.ndarray], rest: Iterator[dict[str, np.ndarray]]) -> Any:
    """The inputs in the form that the quantizer reads."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._inputs = iter((first,))

        def get_next(self) -> Any:  # None at the end, which the base class's type lacks
            return next(self._inputs, None) or next(rest, None)

    return Reader()
