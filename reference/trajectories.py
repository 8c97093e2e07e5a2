"""The teacher's trajectories, from which `reference.train_student` learns.

    python -m reference.trajectories --bundle DIR --out DIR --count N

A trajectory holds the latents after every second of the eight guided steps that are the bundle's
default. 70 % start from the layout bank and the others from noise alone. A third of the requests
have free action units in place of those drawn for their label, a fifth has two of these replaced,
and a tenth each has no prompt or a short one, so that the student follows what a user may ask.

OUT gets chunks of 512 trajectories; the same command resumes a run that was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from rich.progress import track

from synfer_rt.backends import to_numpy
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.sampling.requests import Request, Requests, make_requests
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.vocabulary.facs import OPENGRAPHAU_41, au_vector

STEPS = 8
EVERY = 2
"""Every so many steps the latents are kept."""
STARTS = ("bank", "none")
"""Where a trajectory begins: at a layout with noise, or at noise alone."""
CHUNK = 512
_FROM_BANK = 0.7
_SEED = 90_000_001
_BATCH = 16


@dataclass(frozen=True)
class Trajectories:
    """N trajectories that begin alike.

    `states` are float16 [N, STEPS / EVERY + 1, C, h, w], `tokens` int16 [N, L] and `aus` float16
    [N, A] in [0, 1].
    """

    states: np.ndarray
    tokens: np.ndarray
    aus: np.ndarray


def timesteps(bundle: Bundle, start: str) -> list[int]:
    """The timesteps of the teacher's steps, [STEPS], for a start of STARTS."""
    return [int(t) for t in _way(bundle, start).timesteps]


def _way(bundle: Bundle, start: str) -> Trajectory:
    strength = bundle.defaults.layout_strength if start == "bank" else 1.0
    return bundle.trajectory("dpmpp-2m", STEPS, strength)


def read(files: Sequence[Path]) -> dict[str, Trajectories]:
    """The trajectories of chunks, by their start."""
    chunks = [np.load(file) for file in files]
    return {
        start: Trajectories(
            *(
                np.concatenate([chunk[f"{start}_{name}"] for chunk in chunks])
                for name in ("states", "tokens", "aus")
            )
        )
        for start in STARTS
    }


def drawn(index: int, requests: Mapping[str, Requests]) -> tuple[str, Request]:
    """The start and the request of trajectory `index`, from those of each start."""
    draw = np.random.default_rng([_SEED, index])
    start = "bank" if draw.random() < _FROM_BANK else "none"
    request = requests[start][index]
    units, which = OPENGRAPHAU_41, draw.random()
    if which < 0.35:
        count = draw.integers(0, 7)
        chosen = draw.choice(len(units), count, replace=False)
        request = replace(request, aus={units[i]: float(draw.random()) for i in chosen})
    elif which < 0.55:
        moved = {units[i]: float(draw.random()) for i in draw.choice(len(units), 2, replace=False)}
        request = replace(request, aus={**request.aus, **moved})
    words = draw.random()
    if words < 0.1:
        request = replace(request, prompt="")
    elif words < 0.2:
        request = replace(request, prompt=f"a photo of a {request.label} person")
    return start, request


def _sampled(sampler: Sampler, requests: Sequence[Request], start: str) -> dict[str, np.ndarray]:
    """The arrays of a chunk's trajectories that begin at `start`."""
    bundle, way, states = sampler.bundle, _way(sampler.bundle, start), []
    for first in range(0, len(requests), _BATCH):
        part = list(requests[first : first + _BATCH])
        count = len(part)
        part += part[-1:] * (_BATCH - count)
        latents = sampler.start(part, way)
        guidance = np.array([request.guidance for request in part], np.float32)
        kept = [latents.astype(np.float16)]
        steps = sampler.denoise(latents, sampler.condition(part), guidance, way)
        for step, after in enumerate(steps, 1):
            if step % EVERY == 0:
                kept.append(to_numpy(after).astype(np.float16))
        states.append(np.stack(kept, 1)[:count])
    aus = np.stack([au_vector(request.aus, bundle.au_names) for request in requests])
    return {
        f"{start}_states": np.concatenate(states),
        f"{start}_tokens": bundle.tokenize([r.prompt for r in requests]).astype(np.int16),
        f"{start}_aus": aus.astype(np.float16),
    }


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--count", default=18_432, show_default=True, help="How many trajectories.")
@click.option("--backend", default="auto", show_default=True)
def main(bundle: Path, out: Path, count: int, backend: str) -> None:
    """Sample the teacher and keep its latents."""
    out.mkdir(parents=True, exist_ok=True)
    teacher = open_bundle(bundle)
    sampler = Sampler.of(teacher, backend)
    requests = {start: make_requests(teacher, layout=start, seed=_SEED) for start in STARTS}
    for number in track(range(-(-count // CHUNK)), "sampling the teacher"):
        file = out / f"{number:05d}.npz"
        if file.exists():
            continue
        by_start: dict[str, list[Request]] = {start: [] for start in STARTS}
        for index in range(number * CHUNK, (number + 1) * CHUNK):
            start, request = drawn(index, requests)
            by_start[start].append(request)
        arrays: dict[str, np.ndarray] = {}
        for start, some in by_start.items():
            arrays |= _sampled(sampler, some, start)
        part = file.with_suffix(".part")
        with part.open("wb") as opened:
            np.savez(opened, **arrays)  # pyright: ignore[reportArgumentType]
        part.replace(file)


if __name__ == "__main__":
    main()
