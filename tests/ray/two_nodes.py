"""Drivers that run on a real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.bench.faults.ray_nodes import Nodes, read_variables
from synfer_rt.data.writers import run_file

ROOT = Path(__file__).resolve().parents[2]


class Cluster:
    """A cluster whose nodes may be removed, and drivers that run on it."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        read_variables()
        self._bundle, self._folder = bundle, folder
        self._nodes = Nodes()
        self.ray = self._nodes.ray
        self.add_node, self.remove = self._nodes.add, self._nodes.remove
        self.writing = self._nodes.writing
        self.drivers: list[subprocess.Popen[str]] = []

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
        self._nodes.close()


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


def shards(out: Path) -> int:
    """How many shards of the run in `out` are finished, decided or not."""
    undecided = len([*run_file.folder(out).glob("undecided-*.tar")])
    return undecided + len([*out.glob("*.tar")]) + len([*out.glob("*.parquet")])


def kill(process: int) -> None:
    """End a process at once."""
    os.kill(process, signal.SIGKILL)
