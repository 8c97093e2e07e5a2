"""Reports on stderr of files that were skipped, labels that were not understood, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from synfer_rt.commands.notes import note

_SHOWN = 20
_REASONS = 10


def report_skipped(skipped: Sequence[tuple[str, str]], where: Path | str) -> None:
    """Report how many files were skipped, and the first of them; `where` lists them all."""
    if skipped:
        files = "1 file" if len(skipped) == 1 else f"{len(skipped)} files"
        note(f"{files} skipped (all of them in {where}):")
        for name, reason in skipped[:_SHOWN]:
            note(f"  {name}: {reason}")


def report_problems(problems: Counter[str], given: int, effect: str) -> None:
    """Say on stderr how many of the `given` labels were not understood, and the commonest reasons.

    `effect` is what that means for their images.
    """
    if problems:
        said = f"{problems.total()} of {given} labels not understood, so {effect}:"
        report_reasons(said, problems)


def report_reasons(said: str, reasons: Counter[str]) -> None:
    """Say something on stderr, and how often each of the commonest `reasons` is why."""
    note(said)
    shown = reasons.most_common(_REASONS)
    for reason, count in shown:
        note(f"  {count}: {reason}")
    if rest := reasons.total() - sum(count for _, count in shown):
        note(f"  {rest}: other reasons")
