"""What cannot be read or written: unfinished outputs of synfer-rt, and outputs inside an input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from synfer_rt.data.images import folders_of_images
from synfer_rt.data.writers import run_file
from synfer_rt.errors import UserError
from synfer_rt.paths import is_folder, resolved


def refuse_unfinished(path: Path, files: Sequence[Path]) -> None:
    """Raise UserError where files of a run that is not finished are among those below `path`."""
    for file in files:
        if file.suffix == ".partial":
            raise UserError(
                f"{file} is a file that synfer-rt has not finished; run its command again with "
                "--resume first."
            )
    if not is_folder(path):
        return
    parents = {file.parent for file in files}
    folders = parents | {folder for parent in parents for folder in parent.parents}
    for run in sorted({path, *(folder for folder in folders if path in folder.parents)}):
        if not run_file.exists(run):
            continue
        refuse_growing(run)
        if missing := _missing_shards(run, files):
            raise UserError(
                f"{run} lacks {missing} of its run's shards; finish it by running its command "
                f"again with --resume, or remove {run_file.path(run)} if they were taken away on "
                "purpose."
            )


def refuse_growing(run: Path) -> None:
    """Raise UserError where a run is not finished; its files need not be listed for that."""
    if run_file.exists(run) and (growing := next(run_file.growing(run), None)):
        raise UserError(
            f"The run in {run} is not finished ({growing} is there); run its command again with "
            "--resume first."
        )


def _missing_shards(run: Path, files: Sequence[Path]) -> int:
    """How many shards of a run are not there: it leaves no unfinished file between two of them."""
    try:
        settings = run_file.load(run)
        shards = -(-run_file.count(settings) // int(settings["shard_size"]))
        suffix = {"webdataset": ".tar", "parquet": ".parquet"}[settings["format"]]
    except (UserError, KeyError, TypeError, ValueError, ArithmeticError):
        return 0  # another format, or another program's run.json
    # Its shards may have been sorted into folders since, by split for instance.
    found = sum(file.suffix == suffix and run in file.parents for file in files)
    return max(0, shards - found)


def refuse_inside(out: Path, inputs: Sequence[Path]) -> None:
    """Raise UserError when `out` would lie in one of the inputs: they are only ever read.

    A folder that an input links to is part of it. `out` may lie beside a table: of the folder only
    what the table names is the input. Also raises UserError for a path that cannot be looked at.
    """
    around = {resolved(out), *resolved(out).parents}
    for path in inputs:
        if is_folder(path) and not around.isdisjoint(folders_of_images(path)):
            raise UserError(
                f"{out} lies inside the input {path} or a folder that it links to; choose another "
                "--out."
            )
