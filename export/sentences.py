"""Parts of the one sentence that a user reads of bad input."""

from __future__ import annotations

from collections.abc import Collection


def first_line(error: Exception) -> str:
    """What a library's error says, for the middle of a sentence."""
    return str(error).strip().partition("\n")[0].rstrip(".:")


def some(names: Collection[str], limit: int = 8) -> str:
    """The first `limit` names in order and how many there are beside; `nothing` if none."""
    listed = sorted(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return (", ".join(listed[:limit]) or "nothing") + more
