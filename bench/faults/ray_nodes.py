"""A real Ray cluster on this machine: a first node and others, of one CPU core each."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from synfer_rt.data.writers import run_file

STORE = 80 * 1024 * 1024
"""Bytes of a node's object store, about the least that Ray takes."""
QUICK = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
"""Ray notices that a node is gone in seconds. Its defaults are for networks that stall."""


class Nodes:
    """A cluster whose nodes may be removed. Raises ImportError without Ray."""

    def __init__(self) -> None:
        self.ray: Any = import_module("ray.cluster_utils").Cluster()

    @property
    def address(self) -> str:
        """HOST:PORT of the first node."""
        return self.ray.address

    def add(self) -> Any:
        """Start a node. The first is the one that drivers belong to."""
        first = self.ray.head_node is None
        own = {"_system_config": QUICK} if first else {}
        return self.ray.add_node(
            num_cpus=1, object_store_memory=STORE, include_dashboard=False, **own
        )

    def remove(self, node: Any) -> None:
        """End all processes of a node, as if its machine had lost its power."""
        self.ray.remove_node(node, allow_graceful=False)

    def writing(self, node: Any, out: Path) -> set[int]:
        """The numbers of a node's processes that are writing shards of the run in `out`."""
        (raylet,) = node.all_processes["raylet"]
        return {number for number in writers(out) if parent(number) == raylet.process.pid}

    def close(self) -> None:
        """End all nodes."""
        self.ray.shutdown()


def read_variables() -> None:
    """Let Ray read the environment again, whose settings it keeps once it is imported."""
    core = import_module("ray._raylet")
    core.Config.initialize("")
    core.AuthenticationTokenLoader.instance().reset_cache()


def writers(out: Path) -> set[int]:
    """The numbers of the processes that are writing shards of the run in `out`, or were killed."""
    names = [path.name for path in run_file.folder(out).glob("*[0-9].*.by-*.partial")]
    return {int(found[1]) for name in names if (found := re.search(r"-(\d+)-[0-9a-f]{8}-", name))}


def parent(process: int) -> int | None:
    """The number of a process's parent; None if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    return int(status.partition("PPid:")[2].split()[0])
