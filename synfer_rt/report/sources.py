"""What a report shows: the images and records of a finished run, or of a table of `label`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from synfer_rt.data import label_table
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.datasets.items import Read
from synfer_rt.data.images import in_utf8
from synfer_rt.data.writers import read, run_file
from synfer_rt.data.writers.atomic import partial
from synfer_rt.data.writers.working_copy import Place, opened
from synfer_rt.errors import UserError
from synfer_rt.jobs.run_status import refuse_unfinished
from synfer_rt.jobs.verify import settings_of
from synfer_rt.label_lines import ANY_LINE, LINE, from_cells
from synfer_rt.paths import Location, is_folder, whole_name
from synfer_rt.records import FILE_NAME, Field, Record, json_object
from synfer_rt.report.evaluation import evaluation_beside

RUN, TABLE = "run", "table"


class Shown(NamedTuple):
    """An image of a source: its record, its file's bytes, and whether these lie in a file alone."""

    record: Record
    content: bytes | None
    in_file: bool


@dataclass(frozen=True)
class Source:
    """A finished run, or a table of `label`.

    `name` is for readers, `kind` RUN or TABLE; `settings` are those of run.json or of the table,
    which hold nothing where a table has none. `count` is the number of images, which `images`
    yields in their order. `folder` is where the names of files lead, if images lie in files, and
    `evaluation` what `synfer-rt evaluate` found of it. `place` names it in messages.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    count: int
    images: Callable[[], Iterator[Shown]] = field(repr=False)
    folder: Path | None
    evaluation: Any
    place: str


@contextmanager
def source(location: Location) -> Generator[Source]:
    """The source at a path or address, to be read once within the block.

    Raises UserError for a place that holds neither a finished run nor a table of `label`, and, when
    its images are read, for one that is damaged.
    """
    if isinstance(location, Path) and not is_folder(location) and location.suffix:
        yield _table(location)
        return
    with opened(location) as place:
        yield _run(place)


def _run(place: Place) -> Source:
    out = place.path
    settings = settings_of(out)
    named = str(place.named(out))
    refuse_unfinished(out)
    in_files, count = settings["format"] == "imagefolder", run_file.count(settings)

    def images() -> Iterator[Shown]:
        there = 0
        try:
            for record, png in read(out):
                there += 1
                yield Shown(record, png, in_files)
            if there != count:
                raise ValueError(f"it has {there} of {count} images")
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"{named} cannot be read ({error}); `synfer-rt verify {named}` lists what is wrong."
            ) from None

    return Source(
        in_utf8(whole_name(out).name),
        RUN,
        settings,
        count,
        images,
        out if in_files else None,
        evaluation_beside(run_file.folder(out), out),
        named,
    )


def _table(path: Path) -> Source:
    if not path.is_file():
        if partial(path).exists():
            raise UserError(f"{path} is not finished; run its command again with `--resume`.")
        raise UserError(
            f"There is no table or run {path}; give a table that `synfer-rt label` wrote, or the "
            "directory of a run."
        )
    settings = label_table.begun_with(path)
    if path.suffix not in label_table.SUFFIXES or settings is None:
        raise UserError(
            f"{path} is no table of `synfer-rt label` ({label_table.settings_file(path).name} "
            "beside it holds its settings); give one, or the directory of a run."
        )
    folder = label_table.folder_of(path)
    return Source(
        in_utf8(path.name),
        TABLE,
        settings,
        sum(1 for _ in _lines(path)),
        lambda: _labelled(path, folder),
        folder,
        evaluation_beside(path.parent, prefix=f"{path.name}."),
        str(path),
    )


def _labelled(path: Path, folder: Path | None) -> Iterator[Shown]:
    """The images of a table, each read from its file, or from the dataset that holds it."""
    elsewhere: dict[str, Read] | None = None
    for line in _lines(path):
        name = str(line.get(FILE_NAME.name, ""))
        content = None if folder is None else _content(folder / name)
        in_file = content is not None
        if content is None and folder is not None and not line.get("error"):
            if elsewhere is None:
                elsewhere = _readers(folder)
            content = _read(elsewhere.get(name))
        yield Shown(line, content, in_file)


def _readers(folder: Path) -> dict[str, Read]:
    """How to read the images of a dataset that do not lie in files of their own, by their names."""
    try:
        return {item.name: item.read for item in read_dataset(folder).items}
    except UserError:  # the report then shows records without images, and says so
        return {}


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes() if file.is_file() else None
    except (OSError, ValueError):
        return None


def _read(reader: Read | None) -> bytes | None:
    try:
        return None if reader is None else reader()
    except (OSError, UserError):
        return None


def _lines(path: Path) -> Iterator[Record]:
    """The lines of a finished table. Raises UserError for one that is damaged."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            if path.suffix != ".csv":
                yield from map(json_object, lines)
                return
            rows = csv.DictReader(lines)
            form = _form(list(rows.fieldnames or ()))
            yield from (from_cells(row, form) for row in rows)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); repeat `synfer-rt label` with another `out`."
        ) from None


def _form(columns: list[str]) -> Record:
    """The blank line of a table of CSV with these columns, which have the order of ANY_LINE.

    Of a field with several columns each name begins with its prefix, or is no other field's.
    """
    form: Record = {}
    rest = iter([*columns, ""])
    name = next(rest)
    for one in ANY_LINE:
        if not one.each:
            if name == one.name:
                form[one.name], name = one.empty, next(rest)
            continue
        parts: Record = {}
        while name and _belongs(name, one):
            parts[name.removeprefix(one.prefix)], name = one.empty, next(rest)
        if parts or one in LINE:
            form[one.name] = parts
    return form


def _belongs(name: str, field: Field) -> bool:
    """Whether a column is one of a field with several columns."""
    if field.prefix:
        return name.startswith(field.prefix)
    others = (one.prefix if one.each else one.name for one in ANY_LINE)
    return not any(name.startswith(one) if one.endswith(".") else name == one for one in others)
