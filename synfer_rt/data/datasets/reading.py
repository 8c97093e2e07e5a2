"""Reading datasets: their images are listed, none is decoded, and nothing is unpacked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from synfer_rt.data.card_files import is_card
from synfer_rt.data.datasets.captions import caption_files, with_captions
from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.dataset import Dataset
from synfer_rt.data.datasets.formats.format import Format
from synfer_rt.data.datasets.formats.left_out import unread
from synfer_rt.data.datasets.formats.registry import FORMATS, recognised
from synfer_rt.data.datasets.items import Item, Skipped
from synfer_rt.data.datasets.labels.class_lists import class_list
from synfer_rt.data.datasets.labels.mapping import mapped_labels
from synfer_rt.data.datasets.labels.numbering import check_numbers
from synfer_rt.data.datasets.refusals import refuse_growing, refuse_unfinished
from synfer_rt.data.images import find_files
from synfer_rt.data.label_table import SUFFIXES as TABLES
from synfer_rt.data.label_table import settings_file
from synfer_rt.errors import UserError
from synfer_rt.paths import is_folder, local
from synfer_rt.vocabulary.scheme_files import LabelScheme, given_scheme


def read_dataset(
    path: str | Path,
    format: str = "auto",
    label_scheme: object = None,
    split: str | None = None,
    target: str | None = None,
    describes: bool = False,
) -> Dataset:
    """List the dataset at `path`, a directory or a file. A table stands for what it names.

    Tables in a directory that `synfer-rt label` wrote are left out: its votes are not the dataset's
    labels.

    `format` is a key of FORMATS, or "auto" to recognise it. `label_scheme` gives label numbers
    their meaning (see scheme_files.given_scheme, and label_schemes.FIRST_NUMBER for those that
    count from 1); without it, a list of classes in the dataset does (see class_lists), or the
    format itself. `split` keeps only the images of that split. If the scheme's file has a mapping
    to the scheme `target`, labels become those that it names. With `describes` items get their
    descriptions, for which text files beside images are read too.

    Raises UserError for a path that is not there, an unknown format, scheme or split, an unfinished
    output of synfer-rt, numbers that do not begin where those of their scheme do, a class folder
    whose name is misspelt, and a dataset without an image that can be used.
    """
    path = local(path)
    scheme = _checked(format, label_scheme)
    contents, left_out = _contents(path, None if scheme is None else scheme.text)
    captions = caption_files(contents.files) if describes else {}
    contents = contents.without(set(captions.values()))
    found = recognised(contents) if format == "auto" else FORMATS[format]
    of_format = found.label_scheme is not None and scheme is None
    if of_format:
        contents = replace(contents, label_scheme=found.label_scheme)
    if describes:
        contents = replace(contents, describes=True)
    contents, unused = _for_format(contents, left_out, found)
    items: list[Item] = []
    skipped: list[Skipped] = []
    for entry in found.read(contents):
        if isinstance(entry, Item):
            items.append(entry)
        else:
            skipped.append(entry)
    items = check_numbers(items, of_format)
    if captions:
        items, wordless = with_captions(items, captions, contents.root)
        skipped += wordless
    if scheme is not None and target is not None and (mapping := scheme.mapped_to(target)):
        items = mapped_labels(items, mapping)
    skipped += [contents.skipped(file, why) for file, why in unused.items()]
    if split is not None:
        items = _of_split(items, split, path)
    if not items:
        why = f" ({skipped[0].name}: {skipped[0].reason}); correct that, or" if skipped else ";"
        raise UserError(
            f"{path} has no image that can be read in the format {found.name}{why} choose another "
            "dataset format."
        )
    return Dataset(path, found.name, tuple(items), tuple(skipped))


def read_datasets(
    paths: Sequence[Path],
    format: str,
    label_scheme: object,
    split: str | None,
    target: str | None = None,
) -> Dataset:
    """Several datasets or images as one; names are then the whole paths. See read_dataset."""
    parts = [read_dataset(path, format, label_scheme, split, target) for path in paths]
    if len(parts) == 1:
        return parts[0]
    items = [replace(item, name=_whole(part, item)) for part in parts for item in part.items]
    skipped = [replace(one, name=_whole(part, one)) for part in parts for one in part.skipped]
    formats = "+".join(sorted({part.format for part in parts}))
    return Dataset(Path("."), formats, tuple(items), tuple(skipped))


def _whole(part: Dataset, entry: Item | Skipped) -> str:
    return (part.root / entry.name).as_posix()


def _checked(format: str, label_scheme: object) -> LabelScheme | None:
    """The scheme that the user gives, if any. Raises UserError for what cannot be."""
    if not isinstance(cast(object, format), str) or format not in ("auto", *FORMATS):
        raise UserError(
            f"There is no dataset format {format!r}; write one of auto, {', '.join(FORMATS)}."
        )
    return None if label_scheme is None else given_scheme(label_scheme)


def _contents(path: Path, label_scheme: str | None) -> tuple[Contents, Mapping[Path, str]]:
    """The files of the dataset at `path`, and those at or below it that are none, with the reason.

    The label scheme is that of the user, else that of a list of classes in the dataset.
    """
    refuse_growing(path)
    files, closed = find_files(path)
    root, left_out = path.parent, dict[Path, str]()
    if is_folder(path):
        root, own = path, _own_tables(files)
        left_out = {folder: _closed(folder) for folder in closed} | own
        settings = {settings_file(file) for file in own}
        passed_over = left_out.keys() | settings
        files = [file for file in files if file not in passed_over and not is_card(file)]
    refuse_unfinished(path, files)
    if label_scheme is None and (found := class_list(root, files)) is not None:
        class_file, label_scheme = found
        files = [file for file in files if file != class_file]
    return Contents(root, files, label_scheme), left_out


def _closed(folder: Path) -> str:
    """Why find_files did not look into a folder."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        return f"it cannot be listed ({error.strerror}); correct its permissions"
    return "it links to a folder that is read under another name, or that contains the dataset"


def _own_tables(files: Sequence[Path]) -> dict[Path, str]:
    """The tables among `files` that `synfer-rt label` wrote."""
    why = "synfer-rt label wrote it; to use its labels, read the table itself"
    tables = [file for file in files if file.suffix in TABLES]
    present = set(files) if tables else set[Path]()
    return {file: why for file in tables if settings_file(file) in present}


def _for_format(
    contents: Contents, left_out: Mapping[Path, str], format: Format
) -> tuple[Contents, Mapping[Path, str]]:
    """The files that the reader of a format gets, and all others with the reason."""
    of_format = {**unread(contents), **format.left_out(contents)}
    left_out = {**left_out, **of_format}
    left = contents.without(of_format)
    if format.name == "images" and of_format and not left.images:
        left = replace(left, files=[])  # a file beside an unread file, such as a licence
    return left, left_out


def _of_split(items: Sequence[Item], split: str, path: Path) -> list[Item]:
    splits = sorted({item.split for item in items if item.split})
    if split not in splits:
        known = f"it has {', '.join(splits)}" if splits else "it has none, so leave out `split`"
        raise UserError(f"{path} has no split {split!r}; {known}.")
    return [item for item in items if item.split == split]
