"""Continuing a job with the model, the backend and the precision with which it was begun."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from synfer_rt import ranges
from synfer_rt.backends import choose
from synfer_rt.backends.computation import FIELDS, Computation, computation
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.qualities import BEST
from synfer_rt.data.writers.working_copy import shown
from synfer_rt.diffusion.inversion import FIXED_POINT
from synfer_rt.errors import UserError

LOG = logging.getLogger(__name__)
Settings = Mapping[str, Any]


def as_begun(bundle: Bundle, begun: Settings | None) -> Bundle:
    """The bundle as the run `begun` knows it.

    That is under its hash, which may be a former one, and with its quality as the default. A run
    that names none is of a release that knew none.
    """
    if begun is None:
        return bundle
    if begun.get("bundle") == bundle.former_hash:
        bundle = replace(bundle, bundle_hash=bundle.former_hash)
    quality = begun.get("quality", BEST)
    if quality == bundle.defaults.quality or quality not in bundle.qualities:
        return bundle
    return replace(bundle, defaults=replace(bundle.defaults, quality=quality))


def settings_as_begun(settings: Settings, begun: Settings | None) -> dict[str, Any]:
    """The settings of `make_run` of a run, which may continue the run `begun`.

    Its photos are inverted as it was begun, unless the settings say how. A run that says nothing is
    of a release that knew one way.
    """
    if begun is None or begun.get("photo_set") is None or settings.get("inversion") is not None:
        return {**settings}
    return {**settings, "inversion": begun.get("inversion", FIXED_POINT)}


@contextmanager
def resumable(how_far: Callable[[], str]) -> Generator[None]:
    """Within the block an interruption gets a note on `how_far` the job is, and how to continue."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        interruption.add_note(
            f"Interrupted with {how_far()}; run the same again with `resume=True` to continue."
        )
        raise


def check_resuming(resume: bool, mix_backends: bool) -> None:
    """Raise UserError for `mix_backends` without `resume`, and for values that are not bool."""
    ranges.flag("resume", resume)
    ranges.flag("mix_backends", mix_backends)
    if mix_backends and not resume:
        raise UserError(
            "`mix_backends` is for a run that is continued; add `resume=True`, or leave it out."
        )


def choose_computation(
    asked: str, bundle: Bundle, out: Path, begun: Settings | None, mix: bool
) -> tuple[Computation, str]:
    """Where and how a job computes on the backend `asked`, and a sentence on why.

    `begun` are the settings of the run in `out` that it resumes; None for a new run, and for a
    complete one, which has nothing left to compute. A run continues where it was begun, since
    backends, their precisions and their versions differ in some pixels of the same sample. With
    `mix` it may continue elsewhere. Raises UserError otherwise, and as `choose` does.
    """
    known, name = None if begun is None else begun.get("backend"), shown(out)
    if asked == "auto" and known is not None and not mix:
        try:
            backend, _ = choose(str(known), bundle)
        except UserError as error:
            raise UserError(f"{name} was begun on {known}. {_sentence(error)} {_REMEDY}") from None
        why = f"{backend} (as the run was begun)"
    else:
        backend, why = choose(asked, bundle)
    found = computation(bundle, backend)
    if begun is None:
        return found, why
    if not any(name in begun for name in FIELDS):
        LOG.warning(
            f"{name} does not say on which backend it was begun. If that was not {backend}, name "
            "it with `backend`: the same samples come out slightly different."
        )
    elif names := found.differs(begun):
        difference = _difference(name, begun, found, names)
        if not mix:
            raise UserError(f"{difference}: {_refusal(begun, names)}")
        LOG.warning(difference)
    return found, why


_REMEDY = (
    "With `mix_backends=True` it continues elsewhere, where the same seeds make slightly different "
    "images."
)


def _refusal(begun: Settings, names: list[str]) -> str:
    where = "where it was begun, with its versions"
    if "backend" in names:
        where = f'with `backend="{begun["backend"]}"`'
    return (
        f"the same samples come out slightly different; continue {where}, or add "
        "`mix_backends=True` to have both in one output."
    )


def _difference(out: Path | str, begun: Settings, found: Computation, names: list[str]) -> str:
    if "backend" in names:
        return f"{out} was begun on {begun['backend']}, this is {found.backend}"
    here = found.settings()
    changes = (f"{name} {_text(begun[name])}, here {_text(here[name])}" for name in names)
    return f"{out} was begun where {found.backend} computes differently ({'; '.join(changes)})"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, cast(list[Any], value))) or "none"
    return str(value)


def _sentence(error: UserError) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]
