"""The run of an object store, as a folder of this machine that holds only its small files.

A run at s3://bucket/faces has the objects that a local one has as files: samples and card under
s3://bucket/faces/, everything else under s3://bucket/__faces__/ (see `run_file`). Code that works
on a run in a folder works on a *working copy* of this one: a temporary folder with its small files,
which notes the address in its own folder. Shards are not in it. They are made there one at a time,
put, and removed (`stored_shards.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

from synfer_rt.data.storage.addresses import Address, address_of
from synfer_rt.data.storage.objects import Objects
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import disk_errors, write_whole
from synfer_rt.errors import UserError
from synfer_rt.paths import local
from synfer_rt.records import json_object

_ADDRESS = ".address"
"""The file in the own folder of a working copy that has the address of its run."""
BESIDE = ("contact-sheet.html", "skipped.jsonl", "README.md")
AMONG = ("README.md", ".huggingface.yaml")
"""The small files of a run besides run.json: in its own folder, and among the samples."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Place:
    """Where a run is: in the folder `path`, or at `address`, of which `path` is a working copy."""

    path: Path
    address: Address | None = None

    def named(self, path: Path) -> Path | str:
        """A path in it as the user knows it: in a store an address."""
        return path if self.address is None else self.text(str(path))

    def text(self, text: str) -> str:
        """A sentence with addresses instead of paths of the working copy.

        Files that are still being made are not in the store, and keep their paths.
        """
        if self.address is None:
            return text
        folders = (run_file.folder(self.path), own_folder(self.address)), (self.path, self.address)
        for folder, address in folders:
            named = re.escape(str(folder)) + r"(?!\S*\.partial)"
            text = re.sub(named, str(address).replace("\\", r"\\"), text)
        return text

    def result(self, result: Result) -> Result:
        """A dataclass of paths with each as the user knows it."""
        if self.address is None:
            return result
        known = cast(Any, result)
        paths = {one.name: getattr(known, one.name) for one in fields(known)}
        named = {name: self.named(x) for name, x in paths.items() if isinstance(x, Path)}
        return replace(known, **named)


@contextmanager
def opened(out: object, argument: str = "out") -> Generator[Place]:
    """The run at the path or address `out`, which `argument` gave, to be begun, continued or read.

    The small files of one in a store are fetched first, and put again at the end if they have
    changed. Raises UserError for what is neither a path nor an address, for a store that cannot be
    used, and for an address with objects that are no run.
    """
    address = out if isinstance(out, Address) else address_of(out)
    if address is None:
        yield Place(local(out, argument))
        return
    with TemporaryDirectory(prefix="synfer-rt-", ignore_cleanup_errors=True) as folder:
        place = Place(Path(folder).resolve() / address.name, address)
        with disk_errors(place.path):
            fetched = _fetch(place.path, address)
        try:
            yield place
            _put_changed(place.path, address, fetched)
        except UserError as error:
            raise UserError(place.text(str(error))) from error


def own_folder(address: Address) -> Address:
    """Where everything of a run but its samples lies: beside it, or in the bucket that it fills."""
    before, _, name = address.key.rpartition("/")
    if not name:
        return address / run_file.INSIDE
    return address.with_key(before) / f"__{name}__"


def address_in(out: Path) -> Address | None:
    """The address of the run of which `out` is a working copy; None if it is not one."""
    try:
        return address_of((run_file.folder(out) / _ADDRESS).read_text(encoding="utf-8"))
    except OSError:
        return None


def samples_of(out: Path) -> Objects | None:
    """The objects with the samples of the run of which `out` is a working copy, or None."""
    address = address_in(out)
    return None if address is None else Objects(address)


def shown(out: Path, path: Path | None = None) -> Path | str:
    """`out`, or a path in it, as a message should name it: in a working copy by its address."""
    return Place(out, address_in(out)).named(path or out)


def share_settings(out: Path) -> None:
    """Put the run.json of a working copy, unless the store has one, which it then has too.

    Does nothing for a run on this machine. Raises UserError.
    """
    address = address_in(out)
    if address is None:
        return
    file, beside = run_file.path(out), Objects(own_folder(address))
    with disk_errors(out):
        if not beside.put(file, run_file.FILE):
            write_whole(file, beside.read(run_file.FILE))


def check_storable(place: Place, format: str, quota: object) -> None:
    """Raise UserError for a run that cannot be written to a store."""
    if place.address is None:
        return
    if format == "imagefolder":
        raise UserError(
            f"`format` imagefolder would make an object of each image, which is slow in "
            f'{place.address}; choose `format="webdataset"` or `format="parquet"`.'
        )
    if quota is not None:
        raise UserError(
            "`count_accepted` requests what follows from all samples so far, which its processes "
            "read in a folder that all see, not in a store; write to such a folder and copy the "
            "run, or leave out `count_accepted`."
        )


def _fetch(out: Path, address: Address) -> Mapping[Path, bytes]:
    """Make the working copy `out`; the small files in it."""
    samples, beside = Objects(address), Objects(own_folder(address))
    there, own = samples.entries(), beside.entries()
    aside = out.with_name(f"__{out.name}__") if address.key else out / run_file.INSIDE
    aside.mkdir(parents=True)
    (aside / _ADDRESS).write_text(str(address), encoding="utf-8")
    if run_file.FILE not in own:
        # A repository of the Hub has such files from its beginning.
        others = [name for name in there if name[0] not in "._" and name not in AMONG]
        if others:
            raise UserError(
                f"{address} holds {min(others)}, but no run of synfer-rt "
                f"({own_folder(address)}/{run_file.FILE} is missing); if it was moved, move that "
                "folder too, otherwise choose another `out`."
            )
        return {}
    out.mkdir(exist_ok=True)
    files: dict[Path, bytes] = {}
    for folder, objects, names in (
        (aside, beside, (run_file.FILE, *BESIDE)),
        (out, samples, AMONG),
    ):
        for name in own if objects is beside else there:
            if name in names:
                file = folder / name
                files[file] = objects.read(name)
                file.write_bytes(files[file])
    if _format(files[aside / run_file.FILE]) == "imagefolder":
        raise UserError(
            f"{address} is an imagefolder, which is not read in a store; copy it and the folder "
            f"{own_folder(address)} to this machine."
        )
    begun = own[run_file.FILE].time
    if begun is not None:
        os.utime(aside / run_file.FILE, (begun, begun))
    return files


def _format(settings: bytes) -> object:
    try:
        return json_object(settings).get("format")
    except ValueError:
        return None  # `run_file.load` says what is wrong


def _put_changed(out: Path, address: Address, fetched: Mapping[Path, bytes]) -> None:
    """Put the small files that are new or have changed since they were fetched."""
    own = run_file.folder(out)
    for folder, names, place in (own, BESIDE, own_folder(address)), (out, AMONG, address):
        for file in (folder / name for name in names):
            if file.is_file() and file.read_bytes() != fetched.get(file):
                Objects(place).put(file, file.name, replace=True)
