"""`run.json`: the settings of a run, beside its samples from the first moment on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synfer_rt.errors import UserError
from synfer_rt.writers.atomic import commit, disk_errors, open_growing, partial, write_whole

FILE = "run.json"
_MADE = "made"


def begin(out: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a new run, of several that begin at once the first one's alone.

    Raises UserError, also for a run that is there.
    """
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with open_growing(out / FILE) as file:
            if (out / FILE).exists():
                partial(out / FILE).unlink(missing_ok=True)
                raise UserError(
                    f"{out} already holds a run; continue it with --resume, or choose another "
                    "directory with --out."
                )
            file.truncate()
            file.write(_json(settings))
            commit(file, out / FILE)


def load(out: Path) -> dict[str, Any]:
    """The settings of the run in `out`. Raises UserError when they cannot be read."""
    try:
        settings = json.loads((out / FILE).read_bytes())
        if not isinstance(settings, dict):
            raise ValueError
        return settings
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{out / FILE} is not readable; choose another --out.") from None


def check_same(out: Path, settings: Mapping[str, Any]) -> None:
    """Raise UserError unless the run in `out` was begun with these settings.

    A setting that one of them lacks is None there.
    """
    before, settings = load(out), json.loads(json.dumps(settings))
    for name in [*before, *settings]:
        old, new = before.get(name), settings.get(name)
        if old != new and name != _MADE:
            change = f"{name.replace('_', ' ')}: {json.dumps(old)}, now {json.dumps(new)}"
            if name == "dataset":  # hashes, which tell nobody what it was
                change = "dataset (files, labels, sizes or times of change are not what they were)"
            raise UserError(
                f"{out} was begun with another {change}; resume it with its own settings, or "
                "choose another directory with --out."
            )


def count(settings: Mapping[str, Any]) -> int:
    """The samples of a run when it is whole: those of its settings, or those it ended with."""
    return int(settings.get(_MADE, settings["count"]))


def end(out: Path, made: int) -> None:
    """Note that the run ends with `made` samples, fewer than it could have had.

    To be noted before the last file has its final name: a short last shard means that more is to
    come. Raises UserError.
    """
    with disk_errors(out):
        write_whole(out / FILE, _json({**load(out), _MADE: made}))


def _json(settings: Mapping[str, Any]) -> bytes:
    return json.dumps(settings, indent=2).encode() + b"\n"
