"""The layouts of datasets: how each is read, which one a dataset has, and what none reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from synfer_rt.data.datasets.affectnet import affectnet
from synfer_rt.data.datasets.archives import is_archive, webdataset
from synfer_rt.data.datasets.ck_plus import LABEL_FILE, ck_plus
from synfer_rt.data.datasets.columns import AFFECTNET_COLUMN
from synfer_rt.data.datasets.file_names import file_names, file_rule
from synfer_rt.data.datasets.folders import class_folders, folders, images
from synfer_rt.data.datasets.items import IMAGES, Found
from synfer_rt.data.datasets.parquet import holds_images, parquet
from synfer_rt.data.datasets.raf_db import RAF_LISTS, raf_db
from synfer_rt.data.datasets.samples import have_sidecars, sidecars
from synfer_rt.data.datasets.table_files import CERTAIN, look, tables
from synfer_rt.data.datasets.tables import table

READERS: dict[str, Callable[[Path, Sequence[Path], str | None], Found]] = {
    "images": images,
    "folders": folders,
    "table": table,
    "raf-db": raf_db,
    "affectnet": affectnet,
    "ck-plus": ck_plus,
    "file-names": file_names,
    "parquet": parquet,
    "webdataset": webdataset,
    "sidecars": sidecars,
}
WITH_SCHEME = ("raf-db", "affectnet", "ck-plus")
"""The layouts that say what their numbers mean."""
FORMATS = tuple(READERS)
"""Of a dataset that is read; docs/labelling.md says what each looks like."""


_UNREAD: dict[str, str] = {
    suffix: why
    for why, suffixes in {
        "it is a spreadsheet; save it as CSV": (".xlsx", ".xls", ".ods"),
        "it is compressed; decompress it first": (".gz", ".bz2", ".xz", ".zst"),
        "it is an archive of a kind that is not read; unpack it": (".rar", ".7z"),
        "its format is not read; save it as Parquet": (".arrow", ".tfrecord", ".lmdb", ".mdb"),
        "its format is not read; save its images as files, and their labels as CSV": (
            ".pkl", ".pickle", ".pt", ".npz", ".h5", ".hdf5", ".mat",
        ),
    }.items()
    for suffix in suffixes
}  # fmt: skip


def format_of(root: Path, files: Sequence[Path], label_scheme: str | None) -> str:
    """The key of READERS that files below `root` are read by, by what is among them."""
    names = {file.name.lower() for file in files}
    suffixes = Counter(file.suffix.lower() for file in files)
    if names & set(RAF_LISTS):
        return "raf-db"
    if names & {"metadata.jsonl", "metadata.csv"}:
        return "table"
    found = tables(files)
    told = any(table.tells_of(file.name) for file, table in found.items())
    sorted_by_class = class_folders(root, files, label_scheme).any
    images = sum(suffixes[suffix] for suffix in IMAGES)
    # A tree of images may have other things in tars beside it, or what it was unpacked from.
    if suffixes[".tar"] and not ((told or sorted_by_class) and images > suffixes[".tar"]):
        return "webdataset"
    if any(file.suffix.lower() == ".parquet" and holds_images(file) for file in files):
        return "parquet"
    if any(name.endswith("_exp.npy") for name in names):
        return "affectnet"
    if found and all(table.columns.files == (AFFECTNET_COLUMN,) for table in found.values()):
        return "affectnet"
    if told:
        return "table"
    if (found and not sorted_by_class) or all(f.suffix.lower() in CERTAIN for f in files):
        return "table"
    if not images:
        if suffixes[".parquet"]:
            return "parquet"
        if any(map(is_archive, files)):
            return "webdataset"
    if any(name.endswith(LABEL_FILE) for name in names):
        return "ck-plus"
    if have_sidecars(files):
        return "sidecars"
    if sorted_by_class:
        return "folders"
    if file_rule(files) is not None:
        return "file-names"
    # Whoever says what numbers mean has some; folders alone are left, or are said not to be it.
    return "images" if label_scheme is None else "folders"


def not_read(files: Sequence[Path], format: str) -> dict[Path, str]:
    """What no reader, or not that of `format`, takes for the dataset's, and why."""
    aside = {
        file: why
        for file in files
        if (why := _UNREAD.get(file.suffix.lower())) and not is_archive(file)
    }
    if format not in ("images", "folders", "sidecars", "table") or len(files) == 1:
        return aside
    if format != "table":
        found, others = look(files)
        aside |= dict.fromkeys(found, f"it is a table; --format {format} reads none") | others
    archives = filter(is_archive, files)
    return aside | dict.fromkeys(archives, "it is an archive beside images; give it by itself")
