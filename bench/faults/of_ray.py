"""Faults of a Ray cluster of two nodes: workers that are killed, and a node that is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from synfer_rt.bench.faults.ray_nodes import Nodes
from synfer_rt.bench.faults.scenes import Disk, ImpossibleError, Scene

_VARIABLES = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
_KILLS = 3
"""The most workers of one run that are killed."""


class RayCluster(Disk):
    """A cluster of two nodes on this machine, of one CPU core each, which write to this disk."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.both = [nodes.add(), nodes.add()]

    def options(self) -> tuple[str, ...]:
        """The cluster's address."""
        return "--ray", self.nodes.address

    def environment(self) -> dict[str, str]:
        """The variables that its nodes have, too."""
        return {**os.environ, **_VARIABLES}


@contextmanager
def ray_nodes() -> Generator[RayCluster]:
    """A cluster that ends with the block. Raises ImpossibleError without Ray."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(_VARIABLES)  # which Ray reads when it is imported, and its nodes inherit
    try:
        nodes = Nodes()
    except ImportError as error:
        raise ImpossibleError(f"the package {error.name} is not installed") from None
    try:
        yield RayCluster(nodes)
    finally:
        nodes.close()
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


def _cluster(scene: Scene) -> RayCluster:
    assert isinstance(scene.place, RayCluster)
    return scene.place


def kill_workers(scene: Scene) -> int:
    """Kill random workers of the cluster in one run, whose driver goes on; how many."""
    cluster, killed = _cluster(scene), set[int]()
    with scene.started() as (driver,):
        while driver.poll() is None and len(killed) < _KILLS:
            found = (cluster.nodes.writing(node, scene.out) for node in cluster.both)
            if not (writing := sorted(set[int]().union(*found) - killed)):
                time.sleep(cluster.looks)
                continue
            time.sleep(scene.draw.uniform(0, scene.span / 10))
            victim = scene.draw.choice(writing)
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed.add(victim)
        scene.ended(driver, 0)
    return len(killed)


def kill_a_node(scene: Scene) -> int:
    """Kill the node that drivers do not belong to, while it writes a shard; whether it did."""
    cluster = _cluster(scene)
    node: Any = cluster.both[1]
    with scene.started() as (driver,):
        while driver.poll() is None and not cluster.nodes.writing(node, scene.out):
            time.sleep(cluster.looks)
        time.sleep(scene.draw.uniform(0, scene.span / 10))
        met = driver.poll() is None
        if met:
            cluster.nodes.remove(node)
        scene.ended(driver, 0)
    if met:
        cluster.both[1] = cluster.nodes.add()
    return int(met)
