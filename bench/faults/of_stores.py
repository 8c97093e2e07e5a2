"""Faults of an object store: connections that are cut, and a store that goes away for a while."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from synfer_rt.bench.faults import object_store
from synfer_rt.bench.faults.proxy import Fault, Proxy
from synfer_rt.bench.faults.scenes import Disk, ImpossibleError, Scene
from synfer_rt.data.writers import run_file

_CONNECTIONS = 24
"""So many connections of a run may be cut after some bytes."""
_MOST = 20_000
"""The most bytes after which they are."""


class Store(Disk):
    """An S3 server on this machine, which processes reach through `proxy` alone.

    Each run has a bucket of its own. `temporary` is the folder for the files of its processes.
    """

    looks = 0.05

    def __init__(self, port: int, temporary: Path) -> None:
        self.proxy, self._client = Proxy(port), object_store.client(port)
        self._temporary, self._buckets = temporary, dict[Path, str]()
        self._numbers = itertools.count()

    def address(self, out: Path) -> str:
        """The run's address in its bucket."""
        return f"s3://{self._bucket(out)}/{out.name}"

    def environment(self) -> dict[str, str]:
        """Variables that say where the proxy is and temporary files lie, with no others of AWS."""
        others = {name: x for name, x in os.environ.items() if not name.startswith("AWS_")}
        own = object_store.variables(self.proxy.url)
        return {**others, **own, "TMPDIR": str(self._temporary)}

    def fetch(self, out: Path) -> None:
        """Download all objects but the records, which only a store has."""
        for folder in out, run_file.folder(out):
            shutil.rmtree(folder, ignore_errors=True)
        for key in self.traces(out):
            if "/records-" not in key:
                path = out.parent / key
                path.parent.mkdir(exist_ok=True)
                self._client.download_file(self._bucket(out), key, str(path))

    def traces(self, out: Path) -> dict[str, int]:
        """All objects of the bucket, with their sizes."""
        found = self._client.list_objects_v2(Bucket=self._bucket(out)).get("Contents", [])
        return {one["Key"]: one["Size"] for one in found}

    def _bucket(self, out: Path) -> str:
        if out not in self._buckets:
            self._buckets[out] = f"faces-{next(self._numbers)}"
            self._client.create_bucket(Bucket=self._buckets[out])
        return self._buckets[out]


@contextmanager
def s3() -> Generator[Store]:
    """A server that ends with the block. Raises ImpossibleError without moto or s3fs."""
    try:
        for name in "s3fs", "moto.server":
            import_module(name)
    except ImportError as error:
        raise ImpossibleError(f"the package {error.name} is not installed") from None
    with (
        object_store.server() as port,
        tempfile.TemporaryDirectory(prefix="synfer-rt-faults-") as temporary,
    ):
        store = Store(port, Path(temporary))
        yield store
        store.proxy.go()


def _proxy(scene: Scene) -> Proxy:
    assert isinstance(scene.place, Store)
    return scene.place.proxy


def cut_connections(scene: Scene) -> int:
    """Cut connections at random during a run, whose processes go on; how many."""
    proxy, draw = _proxy(scene), scene.draw
    before = proxy.cuts
    for _ in range(_CONNECTIONS):
        most = draw.randrange(1, _MOST)
        proxy.faults.append(draw.choice([Fault(), Fault(), Fault(up=most), Fault(down=most)]))
    with scene.started() as processes:
        while any(process.poll() is None for process in processes):
            time.sleep(draw.uniform(0, scene.span / 4))
            proxy.cut()
        for process in processes:
            scene.ended(process, 0)
    proxy.faults.clear()
    return proxy.cuts - before


def be_away(seconds: float, scene: Scene) -> int:
    """Refuse connections for so long in the middle of a run; whether a process met that."""
    proxy = _proxy(scene)
    with scene.started() as processes:
        scene.wait_for_a_trace(processes, {})
        time.sleep(scene.draw.uniform(0, scene.span / 2))
        proxy.go()
        time.sleep(seconds)
        met = any(process.poll() is None for process in processes)
        proxy.come()
        for process in processes:
            scene.ended(process, 0)
    return int(met)
