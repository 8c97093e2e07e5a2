"""A module that computes gradients -> ONNX, its backward pass written out as forward operators.

Inference runtimes have no autograd, and torch.export does not see its operators. So the module is
run on shapes alone while every operator is recorded, including those of the backward pass, and the
recording is exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
import torch.nn.functional as F
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    InlinePass,
    LiftConstantsToInitializersPass,
    NameFixPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn
from torch._decomp import get_decompositions
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from synfer_rt.errors import UserError
from synfer_rt.export.lifting.layers import average_pool, max_pool
from synfer_rt.export.lifting.operator import Attributes
from synfer_rt.export.onnx.any_batch import BATCH, any_batch
from synfer_rt.export.onnx.forward_graph import OPSET, clear_metadata, save, store_half, to_onnx
from synfer_rt.export.sentences import first_line


class Traced(nn.Module):
    """The graph of a module's forward with its backward passes written out; see `trace`."""

    def __init__(self, module: nn.Module, graph: GraphModule) -> None:
        super().__init__()
        self.module = module
        self.operators = graph  # the exporter would take "graph" for that of a GraphModule

    def forward(self, *inputs: Tensor) -> Any:
        """What the module returns."""
        return self.operators(_weights(self.module), *inputs)


def export_gradient(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: tuple[str, ...],
    static: frozenset[str],
    path: Path,
    precision: str,
) -> None:
    """Write `module`, whose forward calls torch.autograd.grad, to `path` as a forward graph.

    The arguments are those of `forward_graph.export_onnx`; `inputs` may have any batch. Raises
    UserError if the graph would fix the batch, and for a module that cannot be exported.

    With a symbolic batch, each of three passes over the graph would infer the shapes of thousands
    of operators; with BATCH instead they are many times faster, and `any_batch` then makes the
    batch free. The engine's verification at other batches shows that no place was missed.
    """
    given = {
        name: value if name in static else value[:1].expand(BATCH, *value.shape[1:])
        for name, value in inputs.items()
    }
    try:
        with torch.no_grad():
            traced = trace(module, given)
            program = torch.export.export(traced, tuple(given.values()))
            model = to_onnx(program, given, outputs).model
    except UserError:
        raise
    except Exception as error:  # every part of the exporter raises errors of its own
        while isinstance(error.__cause__, Exception):
            error = error.__cause__
        raise UserError(
            f"The {path.stem} of this checkpoint cannot be exported: the gradient of its "
            f"classifier has no ONNX operators ({type(error).__name__}: {first_line(error)}); give "
            "another guiding classifier, such as a ViT, Swin, ResNet, ConvNeXt or EfficientNet."
        ) from error
    _simplify(model)
    clear_metadata(model)
    any_batch(model, static, path.stem)
    if precision == "fp16":
        store_half(model.graph)
    save(model, path)


def trace(module: nn.Module, inputs: Mapping[str, Tensor]) -> Traced:
    """`module` as a graph of operators of ONNX and TensorRT; the batch is that of `inputs`.

    `inputs` are the forward's arguments in order. The weights stay those of `module`.
    """
    # On shapes alone: nothing is computed except constants that the module makes.
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def run(weights: dict[str, Tensor], *given: Tensor) -> Any:
        return torch.func.functional_call(module, weights, given)

    weights = {name: mode.from_tensor(value.detach()) for name, value in _weights(module).items()}
    given = [mode.from_tensor(value.detach()) for value in inputs.values()]
    with mode, _PlainFormulas():
        graph = make_fx(run, _decompositions())(weights, *given)
    for node in graph.graph.nodes:
        if node.target in _IDENTITIES:
            node.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return Traced(module, graph)


def _simplify(model: ir.Model) -> None:
    """Simplify a graph, in place, as the exporter's optimizer does, without its rewriting rules.

    On a graph of this size these take longer than all the rest, and every runtime has its own.
    """
    InlinePass()(model)
    fold_constants(model, onnx_shape_inference=True)
    Sequential(
        RemoveUnusedNodesPass(),
        RemoveUnusedFunctionsPass(),
        RemoveUnusedOpsetsPass(),
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        DeduplicateInitializersPass(),
        CommonSubexpressionEliminationPass(),
        NameFixPass(),
    )(model)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


_IDENTITIES = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)


_AVERAGES = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d)
"""Pooling over a whole image is implemented as a view in place, which ONNX does not have."""


class _PlainFormulas(TorchFunctionMode):
    """Plain formulas for functions whose fused kernels have no backward pass in ONNX."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func is F.linear:
            return _linear(*args, **kwargs)
        if func is F.interpolate:
            return _interpolate(*args, **kwargs)
        if func is F.layer_norm:
            return _layer_norm(*args, **kwargs)
        if func is F.avg_pool2d:
            return _average_pool(*args, **kwargs)
        if func is F.max_pool2d:
            return _max_pool(*args, **kwargs)
        if func in _AVERAGES and _is_one(kwargs.get("output_size", args[-1])):
            axes = (-1,) if func is F.adaptive_avg_pool1d else (-2, -1)
            return (kwargs.get("input", args[0])).mean(axes, keepdim=True)
        return func(*args, **kwargs)


def _is_one(size: Any) -> bool:
    return all(length == 1 for length in (size if isinstance(size, Sequence) else (size,)))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Softmax attention (arXiv 1706.03762, eq. 1) without the dropout and the causal mask."""
    assert not dropout_p and not is_causal
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    return (scores if attn_mask is None else scores + attn_mask).softmax(-1) @ value


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A product of two matrices; with strided rows PyTorch would make one for each sample."""
    rows = F.linear(x.reshape(-1, x.shape[-1]), weight, bias)
    return rows.reshape(*x.shape[:-1], weight.shape[0])


def _layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer normalisation (arXiv 1607.06450) over the last axis, in single operations.

    The backward pass of the fused operation needs its mean and deviation, and TensorRT refuses a
    LayerNormalization that has these as outputs.
    """
    assert len(shape) == 1
    centred = x - x.mean(-1, keepdim=True)
    normal = centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    normal = normal if weight is None else normal * weight
    return normal if bias is None else normal + bias


def _average_pool(
    image: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Averages over windows as products with matrices, as of ONNX graphs that are lifted."""
    assert divisor_override is None
    windows = _windows(kernel_size, stride, padding, 1, ceil_mode)
    return average_pool(_of(windows | {"count_include_pad": int(count_include_pad)}), image)


def _max_pool(
    image: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """Maxima over windows as comparisons, as of ONNX graphs that are lifted.

    The backward pass of the fused operation needs the places of the maxima, which TensorRT does not
    have as an output.
    """
    assert not return_indices
    return max_pool(_of(_windows(kernel_size, stride, padding, dilation, ceil_mode)), image)


def _windows(
    kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> dict[str, Any]:
    """The windows of a pooling as ONNX's attributes."""
    kernel, strides, pads, dilations = (
        [*sizes] if isinstance(sizes, Sequence) else [sizes] * 2
        for sizes in (kernel_size, stride or kernel_size, padding, dilation)
    )
    shape = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
    return shape | {"pads": pads * 2, "ceil_mode": int(ceil_mode)}


def _of(attributes: Mapping[str, Any]) -> Attributes:
    return Attributes(attributes, OPSET, 1)


def _interpolate(
    image: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", **others: Any
) -> Tensor:
    """Nearest upsampling by whole factors, as repetition: its backward pass is a sum."""
    height, width = image.shape[-2:]
    if size is None and mode == "nearest" and scale_factor == int(scale_factor):
        k = int(scale_factor)
        repeated = image[:, :, :, None, :, None].expand(-1, -1, -1, k, -1, k)
        return repeated.reshape(-1, image.shape[1], height * k, width * k)
    return F.interpolate(image, size, scale_factor, mode, **others)


def _convolution_backward(
    gradient: Tensor,
    image: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, None, None]:
    """The input's gradient; the weights are frozen and need none.

    It is a transposed convolution, and for a transposed convolution a convolution.
    """
    assert not wanted[1] and not wanted[2]
    if not wanted[0]:
        return None, None, None
    rank = image.ndim - 2
    stride, padding, dilation = (
        [*sizes] * rank if len(sizes) == 1 else sizes for sizes in (stride, padding, dilation)
    )
    if transposed:
        none = [0] * rank
        back = torch.ops.aten.convolution(
            gradient, weight, None, stride, padding, dilation, False, none, groups
        )
        return back, None, None
    covered = [
        (g - 1) * s - 2 * p + d * (k - 1) + 1
        for g, s, p, d, k in zip(
            gradient.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True
        )
    ]
    rest = [int(size - c) for size, c in zip(image.shape[2:], covered, strict=True)]
    result = torch.ops.aten.convolution(
        gradient, weight, None, stride, padding, dilation, True, rest, groups
    )
    return result, None, None


def _select_backward(gradient: Tensor, sizes: Sequence[int], dim: int, index: int) -> Tensor:
    """The gradient between zeros, by padding: the usual scatter would fix the batch."""
    return _slice_backward(gradient.unsqueeze(dim), sizes, dim, index % sizes[dim], None, 1)


def _slice_backward(
    gradient: Tensor, sizes: Sequence[int], dim: int, start: int, _end: Any, step: int
) -> Tensor:
    """The gradient with zeros between its elements, before and after them."""
    dim = dim % gradient.ndim
    start = min(max(start + sizes[dim] if start < 0 else start, 0), sizes[dim])
    if step > 1:
        spread = _padded(gradient.unsqueeze(dim + 1), dim + 1, 0, step - 1)
        gradient = spread.flatten(dim, dim + 1)
        gradient = gradient.narrow(dim, 0, min(gradient.shape[dim], sizes[dim] - start))
    return _padded(gradient, dim, start, sizes[dim] - start - gradient.shape[dim])


def _padded(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    padding = [0, 0] * (x.ndim - dim)
    padding[-2:] = [before, after]
    return torch.ops.aten.constant_pad_nd(x, padding, 0.0)


def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Decompositions of backward operators, which ONNX does not have."""
    aten = torch.ops.aten
    table = get_decompositions(
        [
            aten._log_softmax_backward_data,
            aten._softmax_backward_data,
            aten.gelu_backward,
            aten.native_group_norm_backward,
            aten.sigmoid_backward,
            aten.silu_backward,
            aten.tanh_backward,
            aten.threshold_backward,
        ]
    )
    return {
        **table,
        aten.convolution_backward.default: _convolution_backward,
        aten.select_backward.default: _select_backward,
        aten.slice_backward.default: _slice_backward,
    }
