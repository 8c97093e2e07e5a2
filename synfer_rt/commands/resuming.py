"""A run that resumes goes on with the model, on the backend and as exactly as it was begun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from synfer_rt.backends import choose
from synfer_rt.backends.computation import FIELDS, Computation, computation
from synfer_rt.bundle import Bundle
from synfer_rt.commands.notes import note
from synfer_rt.errors import UserError

Settings = Mapping[str, Any]


def as_begun(bundle: Bundle, begun: Settings | None) -> Bundle:
    """The bundle under the hash by which the run `begun` knows it, one of an older release too."""
    if begun is not None and begun.get("bundle") == bundle.former_hash:
        return replace(bundle, bundle_hash=bundle.former_hash)
    return bundle


def choose_computation(
    asked: str, bundle: Bundle, out: Path, begun: Settings | None, mix: bool
) -> tuple[Computation, str]:
    """Where and how a command computes, and a sentence on why; `asked` is its --backend.

    `begun` are the settings of the run in `out` that it resumes, None for a new one and for one
    that is whole, where nothing is left to compute. It goes on where it was begun, since backends,
    their precisions and their versions differ in some pixels of the same sample. With `mix` it goes
    on elsewhere. Raises UserError otherwise, and as `choose` does.
    """
    known = None if begun is None else begun.get("backend")
    if asked == "auto" and known is not None and not mix:
        try:
            backend, _ = choose(str(known), bundle)
        except UserError as error:
            raise UserError(f"{out} was begun on {known}. {_sentence(error)} {_REMEDY}") from None
        why = f"{backend} (as the run was begun)"
    else:
        backend, why = choose(asked, bundle)
    found = computation(bundle, backend)
    if begun is None:
        return found, why
    if not any(name in begun for name in FIELDS):
        note(
            f"Warning: {out} does not say on which backend it was begun. If that was another than "
            f"{backend}, name it with --backend: the same samples come out slightly different."
        )
    elif names := found.differs(begun):
        if not mix:
            raise UserError(_refusal(out, begun, found, names))
        note(f"Warning: {_difference(out, begun, found, names)}")
    return found, why


_REMEDY = (
    "With --mix-backends it goes on elsewhere, where the same seeds make slightly other images."
)


def _refusal(out: Path, begun: Settings, found: Computation, names: list[str]) -> str:
    where = "where it was begun, with its versions"
    if "backend" in names:
        where = f"with --backend {begun['backend']}"
    return (
        f"{_difference(out, begun, found, names)}: the same samples come out slightly different; "
        f"go on {where}, or add --mix-backends to have both in one output."
    )


def _difference(out: Path, begun: Settings, found: Computation, names: list[str]) -> str:
    if "backend" in names:
        return f"{out} was begun on {begun['backend']}, this is {found.backend}"
    here = found.settings()
    changes = (f"{name} {_text(begun[name])}, here {_text(here[name])}" for name in names)
    return f"{out} was begun where {found.backend} computes otherwise ({'; '.join(changes)})"


def _text(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _sentence(error: UserError) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]
