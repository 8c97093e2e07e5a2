"""Addresses in object stores: `s3://bucket/faces`, `gs://bucket/faces`, `hf://datasets/me/faces`.

An address never holds credentials, since it is shown, logged and kept by shells.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import cast

from synfer_rt.errors import UserError
from synfer_rt.paths import CREDENTIALS

STORES = ("s3", "gs", "hf")
"""The schemes of addresses that runs are written to."""
# Path merges several slashes into one.
_ADDRESS = re.compile(rf"({'|'.join(STORES)}):/+(.*)", re.IGNORECASE | re.DOTALL)
_KINDS = ("datasets", "spaces", "buckets")
"""What a name on the Hugging Face Hub may begin with; other names are models."""
_EXAMPLES = {
    "s3": "s3://BUCKET/faces",
    "gs": "gs://BUCKET/faces",
    "hf": "hf://datasets/USER/REPOSITORY",
}


@dataclass(frozen=True)
class Address:
    """`key` in a store's bucket or repository, `root`; an empty key stands for all of it."""

    scheme: str
    root: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    @property
    def path(self) -> str:
        """The address without its scheme, as fsspec names it."""
        return f"{self.root}/{self.key}" if self.key else self.root

    @property
    def name(self) -> str:
        """The last part."""
        return self.path.rpartition("/")[2]

    def with_key(self, key: str) -> Address:
        """Another key in the same bucket or repository."""
        return Address(self.scheme, self.root, key)

    def __truediv__(self, name: str) -> Address:
        return self.with_key("/".join(filter(None, (self.key, name))))


def address_of(value: object) -> Address | None:
    """The address that a text or Path names; None for everything else.

    Raises UserError for an address that holds credentials, or that names no place in its store.
    """
    text = os.fspath(cast("os.PathLike[str]", value)) if isinstance(value, os.PathLike) else value
    found = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    scheme, rest = found[1].lower(), found[2]
    parts = [part for part in rest.split("/") if part]
    if CREDENTIALS.match(rest) or (parts and "@" in parts[0]):
        raise UserError(
            f"An address with a name or password before the @ is not taken; write it without, as "
            f"{_EXAMPLES[scheme]}, and give the credentials as the store's library documents it, "
            "by environment variables or a profile."
        )
    if any(part in (".", "..") or re.search(r"[?\\\x00-\x1f\x7f]", part) for part in parts):
        raise UserError(
            f"The address {scheme}://{'/'.join(parts).partition('?')[0]}… has a part that is `.` "
            f"or `..`, or a ?, a \\ or a control character; write it as {_EXAMPLES[scheme]}."
        )
    depth = 1 if scheme != "hf" else 3 if parts and parts[0] in _KINDS else 2
    if len(parts) < depth:
        what = "repository" if scheme == "hf" else "bucket"
        raise UserError(f"{scheme}://{'/'.join(parts)} names no {what}; write {_EXAMPLES[scheme]}.")
    return Address(scheme, "/".join(parts[:depth]), "/".join(parts[depth:]))
