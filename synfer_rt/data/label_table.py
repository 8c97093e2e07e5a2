"""The table that `synfer-rt label` writes: a line for each image, crash-safe and resumable.

During the run the table is a journal of JSON lines, `<name>.partial`, whose first line holds the
settings. With its last line it gets its final name and format; the settings stay beside it in
`<name>.run.json`.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, TextIO, cast

from synfer_rt.backends import computation
from synfer_rt.bundle.former_names import current_name, current_names
from synfer_rt.data.writers.atomic import disk_errors, open_growing, partial, write_whole
from synfer_rt.data.writers.run_file import OTHER_DATASET
from synfer_rt.errors import UserError
from synfer_rt.label_lines import cells, from_cells
from synfer_rt.paths import local
from synfer_rt.records import Record, json_object

SUFFIXES = (".jsonl", ".csv")


class Table:
    """The growing table of one run, at `path` when it is whole; `done` is the number of its lines.

    `settings` are the JSON values that decide the lines, `form` is a blank line
    (`records.blank_line`). Raises UserError for a name that does not end in one of SUFFIXES, if the
    table exists or is begun and `resume` is false, if it was begun with other or unknown settings,
    and if it is not writable.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], form: Record, resume: bool) -> None:
        path = local(path)
        if path.suffix not in SUFFIXES:
            raise UserError(f"`out` must end in .jsonl or .csv, got {path}.")
        self.path, self.form, self.done = path, form, 0
        self._settings: Record = json.loads(json.dumps(settings))
        with disk_errors(path):
            self.finished, begun = path.exists(), _begun(path)
        self._journal: IO[bytes] | None = None
        if not resume and (self.finished or begun):
            raise UserError(
                f"{path} already exists or was begun; continue it with `resume=True`, or choose "
                "another `out`."
            )
        if self.finished:
            self._check_same(_settings_of(path))
            with disk_errors(path):
                partial(path).unlink(missing_ok=True)  # a kill after the renaming leaves it
            return
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._journal = open_growing(path)
            before, self.done, length = _whole_lines(self._journal, form)
            try:
                self._check_same(self._settings if before is None else before)
                self._settings = before or self._settings
            except UserError:
                self._journal.close()
                raise
            self._journal.seek(length)
            self._journal.truncate()
            if before is None:
                self._append([self._settings])

    def _check_same(self, before: Record) -> None:
        for name in [*before, *self._settings]:
            if before.get(name) != self._settings.get(name) and name not in computation.FIELDS:
                what = OTHER_DATASET if name == "dataset" else name.replace("_", " ")
                raise UserError(
                    f"{self.path} was begun with another {what}; resume it with the settings that "
                    "it was begun with, or choose another `out`."
                )

    def records(self) -> Iterator[Record]:
        """The lines that are written, in their order."""
        source = self.path if self.finished else partial(self.path)
        if self.finished and source.suffix == ".csv":
            with source.open(encoding="utf-8", newline="") as rows:
                reader = csv.DictReader(rows)
                reader.fieldnames = list(map(_current_column, reader.fieldnames or ()))
                yield from (from_cells(row, self.form) for row in reader)
            return
        with source.open(encoding="utf-8") as lines:
            yield from map(_read_line, lines if self.finished else islice(lines, 1, None))

    def write(self, records: Sequence[Record]) -> None:
        """Append records; they are on the disk when this returns."""
        with disk_errors(self.path):
            self._append(records)
        self.done += len(records)

    def _append(self, records: Sequence[Mapping[str, Any]]) -> None:
        assert self._journal is not None
        for record in records:
            self._journal.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def finish(self) -> None:
        """Give the table its final name and format."""
        assert self._journal is not None
        form = self.path.with_name(f"{self.path.name}.whole.partial")
        with disk_errors(self.path):
            with form.open("w", encoding="utf-8", newline="") as out:
                if self.path.suffix == ".csv":
                    self._write_csv(out)
                else:
                    for record in self.records():
                        out.write(json.dumps(record, ensure_ascii=False) + "\n")
                out.flush()
                os.fsync(out.fileno())
            write_whole(settings_file(self.path), json.dumps(self._settings).encode() + b"\n")
            os.replace(form, self.path)
            self._journal.close()
            partial(self.path).unlink(missing_ok=True)
        self.finished = True

    def _write_csv(self, out: TextIO) -> None:
        writer = csv.DictWriter(out, list(cells(self.form)))
        writer.writeheader()
        writer.writerows(map(cells, self.records()))

    def close(self) -> None:
        """Stop; what is written stays for a run that resumes. Raises UserError on a full disk."""
        if self._journal is not None:
            with disk_errors(self.path):
                self._journal.close()


class Tally:
    """Totals over the lines of a table.

    `labels` counts the images by label, `accepted` those of them that are accepted, `asked` all
    that had something to accept. `given` counts the labels that the dataset has, `problems` those
    of them that were not understood, by the reason. `skipped` are the files that could not be read.
    """

    def __init__(self) -> None:
        self.labels: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.problems: Counter[str] = Counter()
        self.asked = self.given = self.rectified = 0
        self.skipped: list[tuple[str, str]] = []

    def add(self, record: Record) -> None:
        """Count one line."""
        if record["error"]:
            self.skipped.append((record["file_name"], record["error"]))
            return
        self.labels[record["label"]] += 1
        self.accepted[record["label"]] += record["accepted"]
        self.asked += record["asked"]
        self.rectified += record["rectified"]
        self.given += record["written_label"] != ""
        if record["label_problem"]:
            self.problems[record["label_problem"]] += 1


def _begun(path: Path) -> bool:
    return partial(path).exists() and partial(path).stat().st_size > 0


def settings_file(path: Path) -> Path:
    """Where the settings of the finished table at `path` are."""
    return path.with_name(f"{path.name}.run.json")


def folder_of(path: Path) -> Path | None:
    """The folder that the file names of a table of `label` are relative to.

    None for any other table, and if that folder no longer exists.
    """
    try:
        settings = json_object(settings_file(path).read_bytes())
        folder = Path(os.path.normpath(path.parent / settings["folder"]))
        return folder if folder.is_dir() else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def begun_with(path: Path) -> Record | None:
    """The settings of the table at `path`, finished or not; None if they are not found."""
    path = local(path)
    try:
        with (settings_file(path) if path.exists() else partial(path)).open("rb") as file:
            return json_object(file.readline())
    except (OSError, ValueError):
        return None


def _settings_of(path: Path) -> Record:
    """The settings of a finished table. Raises UserError if they are not found."""
    try:
        return json_object(settings_file(path).read_bytes())
    except (OSError, ValueError):
        raise UserError(
            f"{path} already exists, and {settings_file(path).name} does not hold its settings; "
            "choose another `out`."
        ) from None


def _whole_lines(file: IO[bytes], form: Record) -> tuple[Record | None, int, int]:
    """The settings, how many whole lines follow them, and the length of all these in bytes."""
    settings, count, length = None, 0, 0
    for line in file:
        try:
            record = _read_line(line if line.endswith(b"\n") else b"")
        except ValueError:
            break
        if settings is None:
            settings = record
        elif _is_line(record, count, form):
            count += 1
        else:
            break
        length += len(line)
    return settings, count, length


def _read_line(text: str | bytes) -> Record:
    """A line of JSON, with today's names of annotators. Raises ValueError for anything else."""
    line = json_object(text)
    if isinstance(votes := line.get("votes"), dict):
        line["votes"] = current_names(cast(Record, votes))
    return line


def _current_column(name: str) -> str:
    """A column's name, with today's name of the annotator if it holds one's votes."""
    prefix, dot, annotator = name.partition(".")
    return f"{prefix}.{current_name(annotator)}" if dot else name


def _is_line(found: Record, index: int, form: Record) -> bool:
    """Whether JSON is line `index` of a table whose blank line is `form`."""
    return (
        _is_alike(found, form)
        and found["index"] == index
        and found["file_name"] != ""
        and (found["error"] != "" or found["label"] in found["probabilities"])
    )


def _is_alike(found: Record, form: Record) -> bool:
    """Whether JSON has the fields of `form` with their types, and these fields theirs."""
    return found.keys() == form.keys() and all(
        type(found[name]) is type(empty)
        and (not isinstance(empty, dict) or _is_alike(found[name], cast(Record, empty)))
        for name, empty in form.items()
    )
