"""Where images come from that are compared: the bundle's engines, or a student outside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from reference import student
from reference.evaluation.sampling import kept
from reference.experiments.setting import Setting
from synfer_rt.bundle.qualities import FAST
from synfer_rt.sampling.requests import Request

Images = Callable[[Sequence[Request], float, str], np.ndarray]
"""Images uint8 [n, S, S, 3] of requests at a start's strength; the text labels a progress bar."""


def of_teacher(setting: Setting, steps: int | None = None) -> Images:
    """The samples of the bundle's guided engine, by default at its default steps."""

    def images(requests: Sequence[Request], strength: float, title: str) -> np.ndarray:
        way = setting.bundle.trajectory(steps=steps, strength=strength)
        title = f"teacher, {title}"
        return np.asarray(kept(setting.sampler, requests, way, setting.work, title)["images"])

    return images


def of_student(setting: Setting) -> Images:
    """The samples of the bundle's distilled engine. Raises SystemExit if it has none."""
    bundle = setting.bundle
    if bundle.distilled is None:
        raise SystemExit(f"{bundle.name} has no quality {FAST}; give a student by --student.")

    def images(requests: Sequence[Request], strength: float, title: str) -> np.ndarray:
        way = bundle.trajectory(strength=strength, quality=FAST)
        title = f"student, {title}"
        return np.asarray(kept(setting.sampler, requests, way, setting.work, title)["images"])

    return images


def of_candidate(setting: Setting, path: Path, steps: int) -> Images:
    """The samples of a student that is not in the bundle, in `steps` steps of DDIM."""
    one = student.Student(student.load(path, setting.bundle, setting.work), setting.sampler)

    def images(requests: Sequence[Request], strength: float, title: str) -> np.ndarray:
        way = setting.bundle.trajectory("ddim", steps, strength)
        return one.kept(requests, way, setting.work, f"student, {title}")

    return images
