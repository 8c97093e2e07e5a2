"""The objects under an address, by fsspec.

An object is put whole or not at all: S3 and Google Cloud Storage show one when its last byte has
arrived, and the Hub when it is committed. So what a listing shows is whole.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import IO, Any, TypeVar

from synfer_rt.data.storage.addresses import Address
from synfer_rt.data.storage.patience import http_status, missing, patiently
from synfer_rt.errors import UserError, installing

Result = TypeVar("Result")
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "s3": {
        "use_listings_cache": False,
        # s3fs tries a few times in two seconds, which helps uploads in several parts; `patiently`
        # does the rest.
        "config_kwargs": {
            "retries": {"total_max_attempts": 1},
            "connect_timeout": 10,
            "read_timeout": 30,
        },
    },
    "gs": {"use_listings_cache": False},
    "hf": {},
}


@dataclass(frozen=True)
class Entry:
    """An object's bytes, and when it was put, in seconds since the epoch, if the store tells."""

    size: int
    time: float | None


class Objects:
    """The objects directly under `address`, by the part of their names that follows it.

    Every method tries again while the store does not answer; see `patiently` for what it raises.
    Raises UserError if the store's library is not installed.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._store = _filesystem(address)

    def _call(self, call: Callable[[], Result]) -> Result:
        return patiently(self.address, call)

    def _path(self, name: str) -> str:
        return f"{self.address.path}/{name}"

    def entries(self) -> dict[str, Entry]:
        """All objects, and what lies deeper by the name of its folder and a slash."""
        named: dict[str, Entry] = {}
        above = len(self.address.path.split("/"))
        for found in self._call(self._listed):
            name, *deeper = str(found["name"]).strip("/").split("/")[above:] or [""]
            if deeper or found.get("type") == "directory":
                named[f"{name}/"] = Entry(0, None)
            elif name:  # else a folder that a web console has made
                named[name] = Entry(found.get("size") or 0, _time(found))
        return named

    def _listed(self) -> list[dict[str, Any]]:
        self._store.invalidate_cache()
        path = self.address.path
        try:
            if not self.address.key:  # with all that others may have there
                return self._store.ls(path, detail=True)
            return [*self._store.find(path, detail=True).values()]
        except FileNotFoundError as error:
            if error.__cause__ is not None:  # there is not even a bucket or repository
                raise missing(self.address) from error
            return []

    def read(self, name: str) -> bytes:
        """The bytes of an object. Raises FileNotFoundError."""
        return self._call(lambda: self._store.cat_file(self._path(name)))

    def look(self, name: str, use: Callable[[IO[bytes]], Result]) -> Result:
        """What `use` makes of an object that it reads parts of. Raises FileNotFoundError."""

        def looked() -> Result:
            with self._store.open(self._path(name), "rb", cache_type="none") as file:
                return use(file)

        return self._call(looked)

    def fetch(self, name: str, file: Path) -> None:
        """Write an object into `file`. Raises FileNotFoundError, and OSError of this disk."""
        self._call(lambda: self._store.get_file(self._path(name), str(file)))

    def put(self, file: Path, name: str, replace: bool = False) -> bool:
        """Put a finished file as one object; False if one had the name, perhaps of an earlier try.

        It stays, unless `replace` is true.
        """
        try:
            self._call(lambda: self._put(file, name, "overwrite" if replace else "create"))
        except FileExistsError:
            return False
        except FileNotFoundError as error:
            raise missing(self.address) from error
        return True

    def _put(self, file: Path, name: str, mode: str) -> None:
        path = self._path(name)
        try:
            self._store.put_file(str(file), path, mode=mode)
        except OSError as error:
            if mode == "create" and http_status(error) == 412:  # "precondition failed"
                raise FileExistsError(path) from error
            if mode != "create" or error.errno != errno.ENOSYS:
                raise
            # A store without conditional requests (If-None-Match).
            if self._store.exists(path):
                raise FileExistsError(path) from error
            self._store.put_file(str(file), path)

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with suppress(FileNotFoundError):
            self._call(lambda: self._store.rm_file(self._path(name)))


def _filesystem(address: Address) -> Any:
    """fsspec's file system of an address; the libraries find credentials by themselves."""
    options = _OPTIONS[address.scheme]
    try:
        fsspec = import_module("fsspec")
        return patiently(address, lambda: fsspec.filesystem(address.scheme, **options))
    except ImportError:
        package = _PACKAGES[address.scheme]
        remedy = installing("storage") if address.scheme == "s3" else f"run `pip install {package}`"
        raise UserError(
            f"{address} needs the package {package}, which is not installed; {remedy}."
        ) from None


def _time(entry: Mapping[str, Any]) -> float | None:
    """When an object was put."""
    found = entry.get("LastModified", entry.get("mtime"))
    return found.timestamp() if isinstance(found, datetime) else None
