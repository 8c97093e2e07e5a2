"""The nodes of a cluster, the workers that they have room for, and how a cluster is named."""

from __future__ import annotations

import signal
import socket
import sys
from types import SimpleNamespace

import pytest

from synfer_rt.errors import UserError
from synfer_rt.ray import cluster
from synfer_rt.ray.cluster import Node, Room, check_address, nodes, on_gpus, room


def node(cpus: int, gpus: int = 0) -> Node:
    return Node("1f", "node7", cpus, gpus)


@pytest.mark.parametrize(
    ("cpus", "threads", "expected"),
    [
        (4, None, Room(1, 4, 0)),
        (8, None, Room(1, 8, 0)),
        (12, None, Room(2, 6, 0)),
        (64, None, Room(8, 8, 0)),
        (64, 16, Room(4, 16, 0)),
        (7, 2, Room(3, 2, 0)),
        (2, 8, Room(1, 2, 0)),
        (0, None, Room(0, 0, 0)),
        (0, 4, Room(0, 0, 0)),
    ],
)
def test_a_node_without_gpus_has_a_worker_for_so_many_cores(cpus, threads, expected):
    assert room(node(cpus), False, threads) == expected


@pytest.mark.parametrize(
    ("cpus", "gpus", "threads", "expected"),
    [
        (32, 8, None, Room(8, 4, 1)),
        (128, 8, None, Room(8, 8, 1)),
        (32, 8, 2, Room(8, 2, 1)),
        (4, 8, None, Room(8, 0, 1)),
        (16, 0, None, Room(0, 0, 1)),
    ],
)
def test_a_node_has_a_worker_for_each_gpu(cpus, gpus, threads, expected):
    assert room(node(cpus, gpus), True, threads) == expected


@pytest.mark.parametrize(
    ("backend", "gpus", "expected"),
    [
        ("auto", 0, False),
        ("auto", 2, True),
        ("openvino-cpu", 2, False),
        ("onnxruntime-cuda", 0, True),
        ("tensorrt-rtx-cuda", 2, True),
    ],
)
def test_workers_get_gpus_where_the_backend_or_the_cluster_has_them(backend, gpus, expected):
    assert on_gpus(backend, [node(4), node(8, gpus)]) == expected


def test_nodes_that_are_gone_are_left_out():
    found = [
        {"Alive": alive, "NodeID": name, "NodeManagerHostname": "h", "Resources": resources}
        for alive, name, resources in (
            (True, "a", {"CPU": 4.0, "GPU": 1.0, "node:10.0.0.1": 1.0}),
            (False, "b", {"CPU": 4.0}),
            (True, "c", {}),
        )
    ]
    alive = nodes(SimpleNamespace(nodes=lambda: found))
    assert alive == [Node("a", "h", 4, 1), Node("c", "h", 0, 0)]


@pytest.mark.parametrize("address", ["auto", "local", "10.0.0.1:6379", "head:6379", "[::1]:6379"])
def test_an_address_names_a_cluster(address):
    check_address(address)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("10.0.0.1", "got '10.0.0.1'."),
        ("", "got ''."),
        (True, "got True."),
        ("http://head:8265", "got 'http://head:8265'."),
        ("ray://head:10001", "on a node of the cluster"),
    ],
)
def test_what_names_no_cluster_is_refused(address, said):
    with pytest.raises(UserError) as refused:
        check_address(address)
    assert str(refused.value).startswith("`ray` must be auto, local, or the address HOST:PORT")
    assert said in str(refused.value)


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"`ray` needs the package ray.*pip install '.\[ray\]'"):
        cluster.ray_package("`ray`")


class Failing:
    """The package `ray`, of which `init` fails as it is told."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.exceptions = SimpleNamespace(RayError=OSError)
        self.ended = False

    def is_initialized(self) -> bool:
        return False

    def init(self, *_: object, **__: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise self._error

    def shutdown(self) -> None:
        self.ended = True


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError("Could not find any running Ray instance. Do"), "ray start --head"),
        (ConnectionError("Failed to connect to Ray cluster at h:1"), "RAY_AUTH_MODE=token"),
        (OSError("Token authentication is enabled but none\nwas found. So"), r"none was found\)"),
        (RuntimeError("Version mismatch: the cluster has\n  Ray: 2.59.0"), "the same versions"),
    ],
)
def test_a_cluster_that_lets_nobody_in_is_one_sentence(monkeypatch, error, said):
    ray, before = Failing(error), signal.getsignal(signal.SIGTERM)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=said) as refused, cluster.connected("auto"):
        pass
    assert "\n" not in str(refused.value) and ray.ended
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_cluster_that_does_not_answer_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", Failing(AssertionError("it would try for minutes")))
    with socket.socket() as taken:  # by nobody who listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for given, variable in ((address, ""), ("auto", address)):
            monkeypatch.setenv("RAY_ADDRESS", variable or "elsewhere:1")
            with (
                pytest.raises(UserError, match=rf"at {address} does not answer \(.*refused"),
                cluster.connected(given),
            ):
                pass
