"""Objects under an address: listed, put once, read and removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from synfer_rt.bench.faults.proxy import Fault, Proxy
from synfer_rt.data.storage.addresses import Address
from synfer_rt.data.storage.objects import Objects
from synfer_rt.errors import UserError
from tests.data.storage.conftest import Bucket

LARGE = 100 << 20
"""From here on s3fs uploads in parts."""


@pytest.fixture
def objects(bucket: Bucket) -> Objects:
    return Objects(Address("s3", bucket.name, "a/faces"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(b"one")
    return made


def test_what_is_put_is_listed_and_read(objects: Objects, bucket: Bucket, file: Path):
    assert objects.entries() == {}
    assert objects.put(file, "x.tar")
    bucket["a/faces/deep/y.tar"] = b"y"
    bucket["a/faces/"] = b""  # as a web console makes a folder
    bucket["a/faces2/z.tar"] = b"z"
    found = objects.entries()
    assert found.keys() == {"x.tar", "deep/"}
    assert found["x.tar"].size == 3 and found["x.tar"].time is not None
    assert objects.read("x.tar") == b"one"
    assert objects.look("x.tar", lambda one: (one.seek(1), one.read(1))) == (1, b"n")
    objects.fetch("x.tar", file.with_name("copy"))
    assert file.with_name("copy").read_bytes() == b"one"
    objects.remove("x.tar")
    objects.remove("x.tar")
    assert objects.entries().keys() == {"deep/"}


def test_an_object_is_only_replaced_on_purpose(objects: Objects, bucket: Bucket, file: Path):
    assert objects.put(file, "x")
    file.write_bytes(b"two")
    assert not objects.put(file, "x") and objects.read("x") == b"one"
    assert objects.put(file, "x", replace=True) and objects.read("x") == b"two"


def test_a_store_without_conditions_is_looked_into_before(
    objects: Objects, bucket: Bucket, file: Path, monkeypatch: pytest.MonkeyPatch
):
    put = objects._store.put_file

    def unconditional(local: str, path: str, mode: str = "overwrite") -> None:
        if mode == "create":
            raise OSError(38, "A header you provided implies functionality not implemented")
        put(local, path)

    monkeypatch.setattr(objects._store, "put_file", unconditional)
    assert objects.put(file, "x") and objects.read("x") == b"one"
    file.write_bytes(b"two")
    assert not objects.put(file, "x") and objects.read("x") == b"one"


def test_a_store_of_which_fsspec_knows_the_least_will_do(
    file: Path, monkeypatch: pytest.MonkeyPatch
):
    """What fsspec does for every store, as for the Hub: it looks before it creates."""
    memory = pytest.importorskip("fsspec").filesystem("memory")
    monkeypatch.setattr("synfer_rt.data.storage.objects._filesystem", lambda address: memory)
    objects = Objects(Address("hf", "datasets/nobody/at-all", "faces"))
    assert objects.entries() == {}
    assert objects.put(file, "x.tar")
    file.write_bytes(b"two")
    assert not objects.put(file, "x.tar") and objects.read("x.tar") == b"one"
    assert objects.put(file, "x.tar", replace=True) and objects.read("x.tar") == b"two"
    assert {name: entry.size for name, entry in objects.entries().items()} == {"x.tar": 3}
    assert objects.look("x.tar", lambda one: (one.seek(-1, os.SEEK_END), one.read())) == (2, b"o")
    objects.remove("x.tar")
    objects.remove("x.tar")
    assert objects.entries() == {}


def test_an_object_that_is_not_there_is_told_apart(objects: Objects, file: Path):
    for use in (
        objects.read,
        lambda x: objects.fetch(x, file),
        lambda x: objects.look(x, lambda one: one.read()),
    ):
        with pytest.raises(FileNotFoundError):
            use("nothing")


def test_a_bucket_that_is_not_there_is_named(bucket: Bucket, file: Path):
    nowhere = Objects(Address("s3", "nowhere-at-all", "faces"))
    for use in (nowhere.entries, lambda: nowhere.put(file, "x")):
        with pytest.raises(UserError, match="There is no bucket s3://nowhere-at-all, or it is"):
            use()


@pytest.mark.slow
def test_an_upload_in_parts_that_is_cut_leaves_nothing(
    objects: Objects, bucket: Bucket, proxy: Proxy, file: Path
):
    content = os.urandom(1 << 20) * (LARGE >> 20) + b"end"
    file.write_bytes(content)
    proxy.cut()
    proxy.faults.extend([Fault(up=10 << 20), Fault(up=70 << 20), *[Fault(up=1 << 20)] * 8])
    assert objects.put(file, "x")
    assert bucket["a/faces/x"] == content
    assert not bucket.uploads()
