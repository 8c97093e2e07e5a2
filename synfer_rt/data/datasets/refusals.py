"""Unfinished datasets, which are not read, and outputs inside inputs, which are not written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from synfer_rt.data.images import folders_of_images
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.imagefolder import METADATA
from synfer_rt.errors import UserError
from synfer_rt.paths import is_folder, resolved


def refuse_unfinished(path: Path, files: Sequence[Path]) -> None:
    """Raise UserError if `files`, those below `path`, include files of an unfinished run."""
    for file in files:
        if file.suffix == ".partial":
            raise UserError(
                f"{file} is not finished; run the command that writes it again with `--resume` "
                "first."
            )
    if not is_folder(path):
        return
    parents = {file.parent for file in files}
    folders = parents | {folder for parent in parents for folder in parent.parents}
    for run in sorted({path, *(folder for folder in folders if path in folder.parents)}):
        if not run_file.exists(run):
            continue
        refuse_growing(run)
        if _lacks_metadata(run):
            raise UserError(
                f"The run in {run} is not finished (metadata.jsonl is missing); run its command "
                f"again with `--resume`, or remove {run_file.path(run)} if it was removed on "
                "purpose."
            )
        if missing := _missing_shards(run, files):
            raise UserError(
                f"{run} lacks {missing} of the shards of its run; run its command again with "
                f"`--resume`, or remove {run_file.path(run)} if they were removed on purpose."
            )


def refuse_growing(run: Path) -> None:
    """Raise UserError if the run in the folder `run` is not finished."""
    if run_file.exists(run) and (growing := next(run_file.growing(run), None)):
        raise UserError(
            f"The run in {run} is not finished ({growing} is there); run its command again with "
            "`--resume` first."
        )


def _lacks_metadata(run: Path) -> bool:
    """Whether images of a run have no records yet, as between two shards of a part."""
    try:
        return run_file.load(run)["format"] == "imagefolder" and not (run / METADATA).exists()
    except (UserError, KeyError):
        return False  # the run.json of another program


def _missing_shards(run: Path, files: Sequence[Path]) -> int:
    """How many shards of a run are missing. A run that stops between two leaves no other sign."""
    try:
        settings = run_file.load(run)
        shards = run_file.shard_count(settings)
        suffix = {"webdataset": ".tar", "parquet": ".parquet"}[settings["format"]]
    except (UserError, KeyError, TypeError, ValueError, ArithmeticError):
        return 0  # a run without shards, or the run.json of another program
    # The shards may have been moved into folders since, by split for instance.
    found = sum(file.suffix == suffix and run in file.parents for file in files)
    return max(0, shards - found)


def refuse_inside(out: Path, inputs: Sequence[Path]) -> None:
    """Raise UserError if `out` would be inside one of the inputs, which are only read.

    A folder that an input links to is part of it. `out` may be beside a table that is an input.
    Also raises UserError for a path that cannot be accessed.
    """
    around = {resolved(out), *resolved(out).parents}
    for path in inputs:
        if is_folder(path) and not around.isdisjoint(folders_of_images(path)):
            raise UserError(
                f"{out} is inside the input {path} or a folder that it links to; choose another "
                "`out`."
            )
