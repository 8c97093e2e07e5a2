"""A simulated builder of TensorRT: a network is an ONNX file, and so is the plan made of it.

It refuses what the libraries refuse: a network that TensorRT 10 would not type strongly, and one
that TensorRT-RTX is to compile for no GPU. Its classes have the names of the bindings' classes.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnx

STRONGLY_TYPED = 1
"""The number of the flag in TensorRT 10; later versions ignore it."""


class ITensor:
    def __init__(self, info: onnx.ValueInfoProto) -> None:
        self.name = info.name
        self._sizes = info.type.tensor_type.shape.dim

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(-1 if size.dim_param else size.dim_value for size in self._sizes)

    def get_dimension_name(self, index: int) -> str:
        return self._sizes[index].dim_param


class INetworkDefinition:
    def __init__(self) -> None:
        self._model = onnx.ModelProto()
        self._content = b""

    @property
    def num_inputs(self) -> int:
        return len(self._model.graph.input)

    def get_input(self, index: int) -> ITensor:
        return ITensor(self._model.graph.input[index])


class OnnxParser:
    def __init__(self, network: INetworkDefinition, log: Any) -> None:
        self._network = network
        self._errors: list[Any] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        self._network._model = onnx.load(model)  # with its weights, as the plan has them
        self._network._content = self._network._model.SerializeToString()
        self._errors = [
            ParserError(node)
            for node in self._network._model.graph.node
            if not onnx.defs.has(node.op_type, node.domain)
        ]
        return not self._errors


class ParserError:
    def __init__(self, node: onnx.NodeProto) -> None:
        self._node = node

    def node_operator(self) -> str:
        return self._node.op_type

    def node_name(self) -> str:
        return self._node.name

    def desc(self) -> str:
        return "no importer"


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, tuple[Any, Any, Any]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = (min, opt, max)


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return self._content + b"timed"


class IBuilderConfig:
    def __init__(self) -> None:
        self._flags = {"TF32"}
        self._profiles: list[IOptimizationProfile] = []
        self._cache = ITimingCache(b"")
        self.hardware_compatibility_level = "NONE"

    def clear_flag(self, flag: str) -> None:
        self._flags.remove(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache:
        return self._cache


class RtxBuilderConfig(IBuilderConfig):
    """TensorRT-RTX's has the GPUs to compile for in addition."""

    def __init__(self) -> None:
        super().__init__()
        self._gpus: list[str | None] = []

    @property
    def num_compute_capabilities(self) -> int:
        return len(self._gpus)

    @num_compute_capabilities.setter
    def num_compute_capabilities(self, count: int) -> None:
        self._gpus = [None] * count

    def set_compute_capability(self, compute_capability: str, index: int) -> bool:
        self._gpus[index] = compute_capability
        return True


class Builder:
    """Makes RtxBuilderConfigs where the library is TensorRT-RTX."""

    def __init__(self, log: Any, rtx: bool) -> None:
        self._log, self._rtx = log, rtx

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        assert flags == 1 << STRONGLY_TYPED, "TensorRT 10 would choose the types itself"
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return RtxBuilderConfig() if self._rtx else IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> bytes | None:
        inputs = map(network.get_input, range(network.num_inputs))
        free = {tensor.name for tensor in inputs if -1 in tensor.shape}
        given = {name for profile in config._profiles for name in profile._shapes}
        gpus = config._gpus if isinstance(config, RtxBuilderConfig) else ["the one here"]
        if free - given or None in gpus or not gpus:
            self._log.log(1, f"no profile for {free - given}, or no GPU in {gpus}")
            return None
        return network._content


def constants(rtx: bool) -> dict[str, Any]:
    """The enumerations of the module that building uses, by name."""
    found: dict[str, Any] = {
        "BuilderFlag": SimpleNamespace(TF32="TF32"),
        "HardwareCompatibilityLevel": SimpleNamespace(AMPERE_PLUS="AMPERE_PLUS"),
        "NetworkDefinitionCreationFlag": SimpleNamespace(STRONGLY_TYPED=STRONGLY_TYPED),
    }
    if rtx:
        gpus = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
        found["ComputeCapability"] = SimpleNamespace(
            **{gpu: gpu for gpu in gpus}, __members__=dict.fromkeys(("NONE", "CURRENT", *gpus))
        )
    return found


CLASSES = (
    Builder,
    IBuilderConfig,
    INetworkDefinition,
    IOptimizationProfile,
    ITensor,
    ITimingCache,
    OnnxParser,
    ParserError,
)
