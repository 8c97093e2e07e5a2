"""Qualities: the ways in which a bundle makes images, and what each of them can follow.

"best" is the model itself, for every setting. "fast" is a student that was distilled from it to few
steps, with classifier-free guidance folded in (arXiv 2210.03142), so it follows only the settings
that it was distilled for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from synfer_rt import ranges
from synfer_rt.bundle.engine_specs import DENOISER, DISTILLED
from synfer_rt.errors import UserError, nearest

BEST, FAST = "best", "fast"
QUALITIES = (BEST, FAST)
"""The names that a manifest may use."""

_NEVER = ("guidance_interval", "semantic_guidance", "layout_from", "cache_every", "eta")
"""Settings that a student never follows: they act on both branches, on other engines, on the way
back from a photo to noise, or on the noise of its steps."""


@dataclass(frozen=True)
class Distilled:
    """What the student was distilled for; `denoiser` is its engine.

    It takes `steps` steps of `solver`, and its predictions are those of classifier-free guidance at
    the scale `guidance`. `strengths` are the parts of the noise schedule that it starts from, in
    (0, 1]; 1 is noise alone. `timesteps` are those of its steps at each strength, None for those
    that the solver chooses.
    """

    denoiser: str
    solver: str
    steps: int
    guidance: float
    strengths: tuple[float, ...]
    timesteps: tuple[tuple[int, ...], ...] | None = None

    def timesteps_at(self, strength: float) -> tuple[int, ...] | None:
        """The timesteps of its steps at one of its strengths; None for the solver's."""
        if self.timesteps is None:
            return None
        return self.timesteps[self.strengths.index(strength)]


def read_distilled(section: Any) -> Distilled | None:
    """The student that the manifest's `qualities` name; None if "best" is the only quality.

    Raises ValueError for the first fault, with a message that continues a sentence. Numbers are
    checked by numbers.py.
    """
    if not _is_object(section) or section.get(BEST) != {"denoiser": DENOISER}:
        raise ValueError(f'the quality {BEST} is not {{"denoiser": "{DENOISER}"}}')
    for name, fields in section.items():
        if name not in QUALITIES or not _is_object(fields):
            raise ValueError(f"its quality {name!r} is none of {', '.join(QUALITIES)}")
    if FAST not in section:
        return None
    fields = section[FAST]
    known = {"denoiser", "solver", "steps", "guidance", "strengths", "timesteps"}
    if unknown := sorted(fields.keys() - known):
        raise ValueError(f"its quality {FAST} has the unknown fields {', '.join(unknown)}")
    if fields["denoiser"] != DISTILLED:
        raise ValueError(f"its quality {FAST} has the denoiser {fields['denoiser']!r}")
    strengths, timesteps = fields["strengths"], fields.get("timesteps")
    if not _is_list(strengths) or not strengths or 0 in strengths:
        raise ValueError(f"its quality {FAST} has no strengths above 0")
    if timesteps is not None and not fits(timesteps, len(strengths), fields["steps"]):
        raise ValueError(f"its quality {FAST} has not one timestep for each strength and step")
    return Distilled(
        DISTILLED,
        fields["solver"],
        fields["steps"],
        float(fields["guidance"]),
        tuple(map(float, strengths)),
        None if timesteps is None else tuple(map(tuple, timesteps)),
    )


def fits(timesteps: Any, strengths: int, steps: int) -> bool:
    """Whether these are lists of `steps` timesteps, one for each of so many strengths."""
    if not _is_list(timesteps) or len(timesteps) != strengths:
        return False
    return all(_is_list(times) and len(times) == steps for times in timesteps)


def settled(
    student: Distilled | None,
    asked: str | None,
    default: str,
    given: Mapping[str, Any],
    strength: float,
    name: str,
) -> tuple[str, str | None]:
    """The quality of a run, and a sentence on why it is not the `default`, or None if it is.

    `asked` is the quality that the user names, if any. `given` are settings of `sample`, None for
    one that is not given; of the negative prompt, only one that is not the default counts as given.
    `strength` is the part of the noise schedule that is run. `name` is the bundle's.

    Raises UserError for an unknown quality, one that the bundle lacks, and for "fast" with settings
    that the student cannot follow.
    """
    if asked is not None:
        _check(asked, student, name)
    if student is None or (asked or default) == BEST:
        return BEST, None
    if not (others := unlike(student, given, strength)):
        return FAST, None
    listed = f"{', '.join(others[:-1])} and {others[-1]}" if len(others) > 1 else others[0]
    if asked is None:
        return BEST, f"Images are made at quality {BEST}, since {FAST} cannot follow {listed}."
    them = "them" if len(others) > 1 else "it"
    raise UserError(
        f'`quality="{FAST}"` cannot follow {listed}; change {them}, or write `quality="{BEST}"`.'
    )


def unlike(student: Distilled, given: Mapping[str, Any], strength: float) -> list[str]:
    """The settings that the student was not distilled for, in words; see `settled`."""
    found: list[str] = []
    for setting, own in (
        ("solver", student.solver),
        ("steps", student.steps),
        ("guidance", student.guidance),
    ):
        value = ranges.plain(given.get(setting))
        if value is not None and not (isinstance(value, str | float | int) and value == own):
            named, known = (x if isinstance(x, str) else ranges.shown(x) for x in (value, own))
            found.append(f"`{setting}` {named} (its own is {known})")
    known_start = strength in student.strengths
    if (timesteps := given.get("timesteps")) is not None:
        own = student.timesteps_at(strength) if known_start else None
        if own is None or not np.array_equal(np.asarray(timesteps), own):
            found.append("other `timesteps` than its own")
    if given.get("negative_prompt") is not None:
        found.append("`negative_prompt` (its guidance is built in)")
    found += [f"`{setting}`" for setting in _NEVER if given.get(setting) is not None]
    if given.get("layout_from") is None and not known_start:
        known = " and ".join(f"{known:g}" for known in student.strengths)
        found.append(f"a start at strength {strength:g} (its own are {known})")
    return found


def _check(asked: object, student: Distilled | None, name: str) -> None:
    if not isinstance(asked, str) or asked not in QUALITIES:
        raise UserError(
            f"Unknown `quality` {asked!r}; the nearest is {nearest(str(asked), QUALITIES)} (known "
            f"are {', '.join(QUALITIES)})."
        )
    if asked == FAST and student is None:
        raise UserError(
            f"{name} has no quality {FAST}; leave out `quality`, or build the bundle from a "
            "checkpoint with a distilled_unet/."
        )


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)
