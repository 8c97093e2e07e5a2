"""A real Ray cluster on this machine: a first node and others, of one CPU core each."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.data.writers import run_file

ROOT = Path(__file__).resolve().parents[2]
STORE = 80 * 1024 * 1024
"""Bytes of a node's object store, about the least that Ray takes."""
QUICK = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
"""Ray notices that a node is gone in seconds. Its defaults are for networks that stall."""


class Cluster:
    """A cluster whose nodes may be removed, and drivers that run on it."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        read_variables()
        self._bundle, self._folder = bundle, folder
        self.ray: Any = RayCluster()
        self.drivers: list[subprocess.Popen[str]] = []

    def add_node(self) -> Any:
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

    def driver(self, *options: str, **variables: str) -> Driver:
        """Start `synfer-rt sample --ray` with these options."""
        words = ["sample", "--bundle", self._bundle, "--backend", "onnxruntime-cpu"]
        words += ["--ray", self.ray.address, *options]
        known = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        known |= {"RAY_USAGE_STATS_ENABLED": "0", "HOME": str(self._folder)}
        process = subprocess.Popen(
            [sys.executable, "-m", "synfer_rt", *map(str, words)],
            cwd=self._folder,
            env={name: value for name, value in known.items() if value},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.drivers.append(process)
        return Driver(process)

    def close(self) -> None:
        """End everything."""
        for process in self.drivers:
            process.kill()
            process.communicate()
        self.ray.shutdown()


class Driver:
    """A command that runs on a cluster."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def end(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> tuple[int, str]:
        """Its exit code, and what it has said."""
        said, _ = self._process.communicate(timeout=120)
        return self._process.returncode, said

    def until(self, holds: Callable[[], Any]) -> Any:
        """What `holds` returns as soon as it is true. The command must not end before."""
        for _ in range(2400):
            if found := holds():
                return found
            assert self._process.poll() is None, self.wait()
            time.sleep(0.05)
        raise AssertionError("nothing for two minutes")


@contextmanager
def cluster(bundle: Path, folder: Path, token: str = "") -> Generator[Cluster]:
    """A cluster of two nodes, which ends with the block. It asks for the token, if there is one."""
    known = {"RAY_AUTH_MODE": "disabled"}
    if token:
        (folder / "token").write_text(token)
        known = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in known.items():
            patch.setenv(name, value)
        found = Cluster(bundle, folder)
        try:
            found.add_node()
            found.add_node()
            yield found
        finally:
            found.close()
    read_variables()


def read_variables() -> None:
    """Let Ray read the environment again, whose settings it keeps once it is imported."""
    core = import_module("ray._raylet")
    core.Config.initialize("")
    core.AuthenticationTokenLoader.instance().reset_cache()


def shards(out: Path) -> int:
    """How many shards of the run in `out` are finished, decided or not."""
    undecided = len([*run_file.folder(out).glob("undecided-*.tar")])
    return undecided + len([*out.glob("*.tar")]) + len([*out.glob("*.parquet")])


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


def kill(process: int) -> None:
    """End a process at once."""
    os.kill(process, signal.SIGKILL)
