"""Addresses in object stores, and texts that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from synfer_rt.data.storage.addresses import Address, address_of
from synfer_rt.data.writers.working_copy import own_folder
from synfer_rt.errors import UserError


@pytest.mark.parametrize(
    ("text", "parts", "own"),
    [
        ("s3://bucket/faces", ("s3", "bucket", "faces"), "s3://bucket/__faces__"),
        ("s3://bucket/a/faces/", ("s3", "bucket", "a/faces"), "s3://bucket/a/__faces__"),
        ("S3://bucket//a///faces", ("s3", "bucket", "a/faces"), "s3://bucket/a/__faces__"),
        ("s3://bucket", ("s3", "bucket", ""), "s3://bucket/__run__"),
        ("gs://bucket/my faces", ("gs", "bucket", "my faces"), "gs://bucket/__my faces__"),
        (
            "hf://datasets/me/faces",
            ("hf", "datasets/me/faces", ""),
            "hf://datasets/me/faces/__run__",
        ),
        (
            "hf://datasets/me/set@main/train",
            ("hf", "datasets/me/set@main", "train"),
            "hf://datasets/me/set@main/__train__",
        ),
        ("hf://me/model/x", ("hf", "me/model", "x"), "hf://me/model/__x__"),
        ("hf://buckets/me/b/x", ("hf", "buckets/me/b", "x"), "hf://buckets/me/b/__x__"),
    ],
)
def test_an_address_is_read(text: str, parts: tuple[str, str, str], own: str) -> None:
    address = address_of(text)
    assert address is not None and address == Address(*parts)
    assert str(own_folder(address)) == own
    assert address_of(str(address)) == address


def test_a_path_that_has_merged_slashes_is_read() -> None:
    assert address_of(Path("s3://bucket/faces")) == Address("s3", "bucket", "faces")


@pytest.mark.parametrize(
    "value",
    ["faces", "./s3:/x", "C:/faces", "https://x/y", "az://x/y", "s3:faces", 3, None, b"s3://x"],
)
def test_other_values_are_no_address(value: object) -> None:
    assert address_of(value) is None


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:hush/hush@bucket/x",
        "s3://hush:hush@bucket/x",
        "hf://hush@datasets/me/x",
        "gs://hush@b",
    ],
)
def test_credentials_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UserError, match="credentials") as refused:
        address_of(text)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://", "names no bucket"),
        ("gs:///", "names no bucket"),
        ("hf://me", "names no repository"),
        ("hf://datasets/me", "names no repository"),
        ("s3://bucket/../x", "write it as s3://BUCKET/faces"),
        ("s3://bucket/x?versionId=3", "write it as"),
        ("s3://bucket/x?X-Amz-Signature=hush", "write it as"),
        ("s3://bucket/a\nb", "write it as"),
    ],
)
def test_what_names_no_place_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        address_of(text)
    assert "hush" not in str(refused.value)
