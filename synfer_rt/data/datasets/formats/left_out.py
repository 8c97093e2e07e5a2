"""Files that a format does not read, and what to do with them instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from synfer_rt.data.datasets.archives import is_archive
from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.items import Found
from synfer_rt.data.writers.run_file import OLD_SHEET

_UNREAD: dict[str, str] = {
    suffix: why
    for why, suffixes in {
        "it is a spreadsheet; save it as CSV": (".xlsx", ".xls", ".ods"),
        "it is compressed; decompress it first": (".gz", ".bz2", ".xz", ".zst"),
        "archives of this kind are not read; unpack it": (".rar", ".7z"),
        "files of this kind are not read; save it as Parquet": (
            ".arrow", ".tfrecord", ".lmdb", ".mdb",
        ),
        "files of this kind are not read; save the images as files and the labels as CSV": (
            ".pkl", ".pickle", ".pt", ".npz", ".h5", ".hdf5", ".mat",
        ),
    }.items()
    for suffix in suffixes
}  # fmt: skip
"""What to do with files that no format reads, by suffix."""


def unread(contents: Contents) -> dict[Path, str]:
    """The files that no format reads, and what to do with each."""
    if _UNREAD.keys().isdisjoint(contents.suffixes):
        return {}
    return {
        file: why
        for file in contents.files
        if (why := _UNREAD.get(file.suffix.lower())) and not is_archive(file)
    }


def archives(contents: Contents) -> Mapping[Path, str]:
    """Archives beside the files of a format that reads none. An archive alone is left to it."""
    if len(contents.files) == 1:
        return {}
    found = filter(is_archive, contents.files)
    return dict.fromkeys(
        found, "it is an archive beside image files; read it as a dataset of its own"
    )


def tables_and_archives(contents: Contents) -> Mapping[Path, str]:
    """Tables and archives beside the files of a format that reads none."""
    if len(contents.files) == 1:
        return {}
    found, others = contents.found_tables
    tables = dict.fromkeys(found, "it is a table; only the format `table` reads tables")
    return {**tables, **others, **archives(contents)}


def loose_images(contents: Contents, beside: str) -> Found:
    """Images beside the files of a format that reads only those."""
    for file in contents.images:
        if file.name != OLD_SHEET:
            yield contents.skipped(file, f"only the {beside} beside it are read")
