"""What an ONNX file says, read without the package onnx.

A file is a protobuf message ModelProto; the numbers of its fields are those of onnx.proto3, and the
encoding is that of protobuf.dev, "Encoding". Only weights, nodes and outputs are read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.bundle.files import file_roots
from synfer_rt.errors import UserError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TYPES = {1: "<f4", 10: "<f2", 11: "<f8"}
"""numpy's names of TensorProto's floating-point types, but for bfloat16."""
_BFLOAT16 = 16


@dataclass(frozen=True)
class Node:
    """A node of the outermost graph: its operator, and the names of what it reads and makes."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file: the nodes of its graph in their order, and the names of inputs and outputs.

    `content` are its bytes.
    """

    path: Path
    content: bytes
    nodes: tuple[Node, ...]
    initializers: frozenset[str]
    outputs: tuple[str, ...]

    def weights(self) -> Iterator[np.ndarray]:
        """Every floating-point tensor that the file holds, in any graph, also in files beside it.

        Raises UserError for one that is cut short or lies outside the file's folder.
        """
        try:
            for graph in _within(memoryview(self.content), 7):
                yield from _weights(graph, self.path.parent)
        except (ValueError, OSError) as error:
            raise _unreadable(self.path, error) from None

    def with_output(self, name: str) -> bytes:
        """The file with one more output, a value of its graph.

        Parts of a message that occur twice are merged, so a graph that holds the output alone is
        put behind the file.
        """
        output = _message(1, name.encode())
        return self.content + _message(7, _message(12, output))


def read(path: Path) -> OnnxFile:
    """The ONNX file at `path`. Raises UserError for one that is missing or no ONNX file."""
    try:
        content = path.read_bytes()
        graphs = list(_within(memoryview(content), 7))
        if not graphs:
            raise ValueError("it holds no graph")
        nodes = [_node(node) for graph in graphs for node in _within(graph, 1)]
        initializers = [_text(one, 8) for graph in graphs for one in _within(graph, 5)]
        outputs = [_text(one, 1) for graph in graphs for one in _within(graph, 12)]
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from None
    return OnnxFile(path, content, tuple(nodes), frozenset(initializers), tuple(outputs))


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = str(getattr(error, "strerror", None) or error)
    return UserError(f"{path} is not an ONNX file that can be read ({reason}); export it again.")


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """The number and value of each field of a message. Raises ValueError if it is damaged."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32, _BYTES):
            size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
            if size is None:
                size, at = _varint(message, at)
            if at + size > end:
                raise ValueError("it is cut short")
            value, at = message[at : at + size], at + size
        else:
            raise ValueError("it is no protobuf message")
        yield number, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("it is cut short or no protobuf message")


def _within(message: memoryview, number: int) -> Iterator[memoryview]:
    """The fields `number` of a message that are bytes, texts or messages."""
    for found, value in _fields(message):
        if found == number and isinstance(value, memoryview):
            yield value


def _text(message: memoryview, number: int) -> str:
    return next((bytes(value).decode() for value in _within(message, number)), "")


def _message(number: int, value: bytes) -> bytes:
    """A field of a message that holds bytes."""
    size, length = len(value), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | _BYTES]) + length + bytes([size]) + value


def _node(node: memoryview) -> Node:
    inputs, outputs = (tuple(bytes(x).decode() for x in _within(node, n)) for n in (1, 2))
    return Node(_text(node, 4), inputs, outputs)


def _weights(graph: memoryview, folder: Path) -> Iterator[np.ndarray]:
    """The floating-point tensors of a graph: weights, constants, and those of inner graphs."""
    for tensor in _within(graph, 5):
        yield from _values(tensor, folder)
    for node in _within(graph, 1):
        for attribute in _within(node, 5):
            for number, value in _fields(attribute):
                if number in (5, 10):  # a tensor, or one of several
                    yield from _values(value, folder)
                elif number in (6, 11):  # an inner graph, or one of several
                    yield from _weights(value, folder)


def _values(tensor: memoryview, folder: Path) -> Iterator[np.ndarray]:
    """The values of a tensor [n], unless they are no floating-point numbers."""
    kind, external, raw = 0, False, b""
    listed: list[memoryview] = []
    halves: list[int] = []
    places: dict[str, str] = {}
    for number, value in _fields(tensor):
        if number == 2:
            kind = value
        elif number == 9:
            raw = value
        elif number in (4, 10):  # floats, or doubles
            listed.append(value)
        elif number == 5:  # the bits of 16-bit numbers
            halves += [value] if isinstance(value, int) else _varints(value)
        elif number == 13:
            places[_text(value, 1)] = _text(value, 2)
        elif number == 14:
            external = value == 1
    if kind != _BFLOAT16 and kind not in _TYPES:
        return
    if external:
        raw = _beside(places, folder)
    elif not raw:
        raw = np.array(halves, "<u2").tobytes() if halves else b"".join(map(bytes, listed))
    if kind == _BFLOAT16:
        yield (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif len(raw):
        yield np.frombuffer(raw, _TYPES[kind])


def _varints(message: memoryview) -> list[int]:
    found: list[int] = []
    at = 0
    while at < len(message):
        value, at = _varint(message, at)
        found.append(value)
    return found


def _beside(places: dict[str, str], folder: Path) -> bytes:
    """The bytes of a tensor that lies in a file beside its model."""
    location = Path(places.get("location", ""))
    file, roots = folder / location, file_roots(folder)
    inside = not location.is_absolute() and ".." not in location.parts
    if not inside or not any(map(file.resolve().is_relative_to, roots)):
        raise ValueError(f"its weights lie outside {folder}, in {location}")
    length = int(places.get("length", -1))
    with file.open("rb") as stream:
        stream.seek(int(places.get("offset", 0)))
        data = stream.read(length)
    if length >= 0 and len(data) != length:
        raise ValueError(f"{location} ends too early")
    return data


def last_product(file: OnnxFile) -> str | None:
    """The value that the last matrix product with weights reads: the features before the scores."""
    for node in reversed(file.nodes):
        if node.operator in ("Gemm", "MatMul") and node.inputs[0] not in file.initializers:
            return node.inputs[0]
    return None


def values_of(nodes: Sequence[Node]) -> frozenset[str]:
    """The names of all values that nodes make."""
    return frozenset(name for node in nodes for name in node.outputs if name)
