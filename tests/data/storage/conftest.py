"""A real S3 server on loopback, a proxy before it that fails as networks do, and a bucket."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from synfer_rt.data.storage import patience
from tests.data.storage.proxy import Proxy
from tests.data.writers.small_run import SmallRun

_NUMBERS = itertools.count()
SECRET = "wJalrXUtnFEMI-a-secret-of-nobody"


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of moto's server, which keeps objects in memory."""
    pytest.importorskip("s3fs", reason="object storage needs synfer-rt[storage]")
    server = pytest.importorskip("moto.server", reason="the tests' S3 server is moto")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    yield running.get_host_and_port()[1]
    running.stop()


@pytest.fixture(scope="session")
def client(s3_port: int) -> Any:
    """A client that asks the server without the proxy between."""
    return pytest.importorskip("boto3").client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{s3_port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


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
    settings = {
        "ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "SECRET_ACCESS_KEY": SECRET,
        "DEFAULT_REGION": "us-east-1",
        "ENDPOINT_URL": proxy.url,
        "CONFIG_FILE": os.devnull,
        "SHARED_CREDENTIALS_FILE": os.devnull,
        "EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
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
