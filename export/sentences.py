"""Parts of the sentences in error messages."""

from __future__ import annotations

from collections.abc import Collection


def first_line(error: Exception) -> str:
    """The first line of a library's error, for the middle of a sentence."""
    return str(error).strip().partition("\n")[0].rstrip(".:")


def some(names: Collection[str], limit: int = 8) -> str:
    """The first `limit` names in order, and the number of others; `nothing` if there are none."""
    listed = sorted(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return (", ".join(listed[:limit]) or "nothing") + more
