"""A real S3 server on loopback, a proxy before it that fails as networks do, and a bucket."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

from synfer_rt.bench.faults import object_store
from synfer_rt.bench.faults.proxy import Proxy
from synfer_rt.data.storage import patience
from tests.data.writers.small_run import SmallRun

_NUMBERS = itertools.count()
SECRET = "wJalrXUtnFEMI-a-secret-of-nobody"


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of moto's server, which keeps objects in memory."""
    pytest.importorskip("s3fs", reason="object storage needs synfer-rt[storage]")
    pytest.importorskip("moto.server", reason="the tests' S3 server is moto")
    with object_store.server() as port:
        yield port


@pytest.fixture(scope="session")
def client(s3_port: int) -> Any:
    """A client that asks the server without the proxy between."""
    return object_store.client(s3_port)


@pytest.fixture(scope="session")
def only_proxy(s3_port: int) -> Iterator[Proxy]:
    """One for all tests, since a connected s3fs takes a while to make."""
    proxy = Proxy(s3_port)
    yield proxy
    proxy.go()


@pytest.fixture
def proxy(only_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The proxy, by which the environment says where S3 is, and with which credentials."""
    proxy = only_proxy
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in object_store.variables(proxy.url, SECRET).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(patience, "_FIRST", 0.05)
    yield proxy
    proxy.faults.clear()


@pytest.fixture
def run() -> SmallRun:
    """The small run of the writers' tests."""
    return SmallRun()


class Bucket:
    """A bucket of the server, as a client sees it."""

    def __init__(self, client: Any, name: str) -> None:
        self.name, self._s3 = name, client
        self._s3.create_bucket(Bucket=name)

    def __str__(self) -> str:
        return f"s3://{self.name}"

    def objects(self) -> dict[str, bytes]:
        """The bytes of all objects by key."""
        found = self._s3.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {one["Key"]: self[one["Key"]] for one in found}

    def versions(self) -> dict[str, Any]:
        """When each object was put, by key."""
        found = self._s3.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {one["Key"]: one["LastModified"] for one in found}

    def uploads(self) -> list[Any]:
        """The uploads in several parts that are not ended."""
        return self._s3.list_multipart_uploads(Bucket=self.name).get("Uploads", [])

    def __getitem__(self, key: str) -> bytes:
        return self._s3.get_object(Bucket=self.name, Key=key)["Body"].read()

    def __setitem__(self, key: str, data: bytes) -> None:
        self._s3.put_object(Bucket=self.name, Key=key, Body=data)

    def __delitem__(self, key: str) -> None:
        self._s3.delete_object(Bucket=self.name, Key=key)


@pytest.fixture
def bucket(client: Any, proxy: Proxy) -> Bucket:
    """A bucket that no other test knows."""
    return Bucket(client, f"faces-{next(_NUMBERS)}")
