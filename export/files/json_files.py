"""JSON files of a checkpoint: reading them, and refusing unknown fields."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from synfer_rt.errors import UserError


def read_json(path: Path, why: str) -> dict[str, Any]:
    """The JSON object in `path`; UserError, which ends in `why`, if there is none."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {why}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); write or fetch it again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object; write or fetch it again.")
    return content


def check_fields(
    path: Path, given: Collection[str], known: Collection[str], alike: float = 0.0
) -> None:
    """Raise UserError for an unknown field whose likeness to a known one is at least `alike`."""
    for field in given:
        near = difflib.get_close_matches(field.lower(), known, 1, alike)
        if near and field not in known:
            raise UserError(
                f"{path} has the unknown field {field!r}; the nearest is {near[0]} (known are "
                f"{', '.join(known)})."
            )
