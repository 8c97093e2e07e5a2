"""A Ray cluster: how to reach it, and the workers that its nodes have room for.

`ray` is imported here alone.
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import socket
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from synfer_rt.backends.choice import check_name
from synfer_rt.errors import UserError, installing

_ADDRESS = re.compile(r"auto|local|(\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+):\d{1,5}")
CORES = 8
"""The most CPU cores that a worker gets unless it is told. More cores make more workers, since one
process prepares, labels and encodes the images of so many with ease."""

_SECONDS = 10.0
"""How long a cluster may take to accept a connection."""


def ray_package(what: str, module: str = "ray") -> Any:
    """The package `ray`, or a module of it, which `what` needs.

    Raises UserError if it is not installed, or lacks a package that it needs itself.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise UserError(
            f"{what} needs the package {package}, which is not installed; {installing('ray')}."
        ) from None


def check_address(address: object) -> None:
    """Raise UserError unless this is auto, local, or the address HOST:PORT of a cluster."""
    if isinstance(address, str) and _ADDRESS.fullmatch(address):
        return
    of_client = isinstance(address, str) and address.startswith("ray://")
    remedy = '; run the command on a node of the cluster, with `ray="auto"`' if of_client else ""
    raise UserError(
        "`ray` must be auto, local, or the address HOST:PORT of a cluster's first node, got "
        f"{address!r}{remedy}."
    )


@contextmanager
def connected(address: str) -> Generator[Any]:
    """Within the block the package `ray` is connected to the cluster at `address`.

    auto is the one that this machine belongs to, or that the environment variable RAY_ADDRESS
    names, and local one of this machine alone, which ends with the block. Where the program has
    called `ray.init` before, it is the one of that call. Raises UserError if it cannot be reached.
    """
    ray = ray_package("`ray`")
    if ray.is_initialized():
        yield ray
        return
    _check_answer(address)
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        with _keeping_sigterm():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        ray.shutdown()
        raise UserError(_why_not(address, error)) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _keeping_sigterm() -> Generator[None]:
    """What SIGTERM does stays as it is. `ray.init` would let it end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_answer(address: str) -> None:
    """Raise UserError unless something listens at an address. Ray would try it for minutes."""
    address = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"The Ray cluster at {address} does not answer ({error}); check the address, and with "
            "`ray status` on its first node whether it runs."
        ) from None


def _why_not(address: str, error: Exception) -> str:
    """One sentence on why a cluster cannot be used, with the remedy."""
    said = " ".join(str(error).split())
    if "Could not find any running" in said:
        return (
            "No Ray cluster was found on this machine; start one with `ray start --head`, name "
            'one by its address with `ray`, or use this machine alone with `ray="local"`.'
        )
    if "mismatch" in said:
        return f"{said.rstrip('.')}; install the same versions on all nodes of the cluster."
    why = said.partition(". ")[0].rstrip(".")
    return (
        f"The Ray cluster ({address}) does not let this process in ({why}). If it asks for a "
        "token, set RAY_AUTH_MODE=token and give this machine that token, as ~/.ray/auth_token or "
        "as RAY_AUTH_TOKEN; `ray get-auth-token` prints it on the first node."
    )


@dataclass(frozen=True)
class Node:
    """A node of a cluster that is alive, with its cores and GPUs as Ray counts them."""

    id: str
    host: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Room:
    """What a node has room for: `workers`, each with so many cores and GPUs."""

    workers: int
    cpus: int
    gpus: int


def nodes(ray: Any) -> list[Node]:
    """The nodes that are alive."""
    return [
        Node(
            found["NodeID"],
            found["NodeManagerHostname"],
            int(found["Resources"].get("CPU", 0)),
            int(found["Resources"].get("GPU", 0)),
        )
        for found in ray.nodes()
        if found["Alive"]
    ]


def on_gpus(backend: str, found: Iterable[Node]) -> bool:
    """Whether the workers get GPUs: where the backend is one of a GPU, or any node has some.

    Raises UserError for an unknown backend.
    """
    check_name(backend)
    return any(node.gpus for node in found) if backend == "auto" else not backend.endswith("-cpu")


def room(node: Node, gpu: bool, threads: int | None) -> Room:
    """The workers that a node has room for: one a GPU, or one for so many cores.

    `threads` are the cores of each. By default they share the node's cores evenly, up to CORES
    each.
    """
    if gpu:
        each = node.cpus // node.gpus if node.gpus else 0
        return Room(node.gpus, min(each, threads or CORES), 1)
    if threads is not None:
        cores = min(threads, node.cpus)
        return Room(node.cpus // cores if cores else 0, cores, 0)
    workers = math.ceil(node.cpus / CORES)
    return Room(workers, node.cpus // workers if workers else 0, 0)


def placed_on(node: Node, room: Room) -> dict[str, Any]:
    """The options of an actor that has a worker's cores and GPUs on this node, or waits there."""
    strategies = import_module("ray.util.scheduling_strategies")
    there = strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)
    return {"num_cpus": room.cpus, "num_gpus": room.gpus, "scheduling_strategy": there}
