"""Choose the timesteps of few-step schedules: those that end nearest to where many steps lead.

    python -m reference.experiments.timesteps --renders DIR

A coordinate search. From the timesteps that the solver would visit, each but the first, which the
start decides, is moved up and down by ever smaller distances, as long as the clean latents come
nearer to those of `--reference` steps from the same noise. What was tried is kept in `--work`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from reference.evaluation import pages, statistics
from reference.evaluation.pages import plus_minus, table
from reference.experiments import setting as settings
from reference.experiments.setting import Setting
from synfer_rt.diffusion.solvers import Trajectory, trajectory
from synfer_rt.export.training import cache
from synfer_rt.sampling.requests import Request, make_requests
from synfer_rt.sampling.sampler import Sampler

SEED = 4321
WIDTHS = (64, 32, 16, 8)
"""How far timesteps are moved, of a thousand."""
Timesteps = tuple[int, ...]


def search(
    distance: Callable[[Timesteps], float], begin: Timesteps, widths: Sequence[int] = WIDTHS
) -> Timesteps:
    """The timesteps of least `distance` that moves of one of them at a time reach from `begin`.

    The first stays. They stay decreasing, and the last stays at 0 or above.
    """
    best, least = begin, distance(begin)
    for width in widths:
        moved = True
        while moved:
            moved = False
            for i in range(1, len(best)):
                for step in (-width, width):
                    tried = (*best[:i], best[i] + step, *best[i + 1 :])
                    if any(a <= b for a, b in itertools.pairwise(tried)) or tried[-1] < 0:
                        continue
                    if (found := distance(tried)) < least:
                        best, least, moved = tried, found, True
    return best


@dataclass(frozen=True)
class Goal:
    """Requests, the noise that they start from, and the clean latents of many steps [n, C, h, w].

    `strength` is the part of the noise schedule that is run, `file` keeps the distances that were
    measured, or nothing does if it is None.
    """

    sampler: Sampler
    solver: str
    strength: float
    requests: Sequence[Request]
    starts: np.ndarray
    ends: np.ndarray
    file: Path | None = None
    _known: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.file is not None and self.file.exists():
            self._known.update(json.loads(self.file.read_text()))

    def way(self, timesteps: Timesteps) -> Trajectory:
        """The steps of the solver from these timesteps."""
        bundle = self.sampler.bundle
        return trajectory(
            self.solver, bundle.schedule, None, self.strength, bundle.prediction_type, timesteps
        )

    def deviations(self, timesteps: Timesteps) -> np.ndarray:
        """How far each request's clean latents are from those of many steps, root mean square."""
        made = self.sampler.denoised(self.requests, self.starts, self.way(timesteps))
        return np.sqrt(np.square(made - self.ends).mean((1, 2, 3)))

    def distance(self, timesteps: Timesteps) -> float:
        """The mean of `deviations`, measured once."""
        name = ",".join(map(str, timesteps))
        if name not in self._known:
            self._known[name] = float(self.deviations(timesteps).mean())
            if self.file is not None:
                part = self.file.with_suffix(".part")
                part.write_text(json.dumps(self._known))
                part.replace(self.file)
        return self._known[name]


def goal(
    setting: Setting, solver: str, layout: str, numbers: range, reference: int, kept: bool
) -> Goal:
    """What few steps should reach for these requests of a start, in `reference` default steps."""
    bundle, sampler = setting.bundle, setting.sampler
    strength = bundle.defaults.layout_strength if layout == "bank" else 1.0
    every = make_requests(bundle, layout=layout, seed=SEED)
    requests = [every[i] for i in numbers]
    way = bundle.trajectory(steps=reference, strength=strength)
    key = cache.key(bundle.bundle_hash, setting.computation, layout, numbers, reference)
    starts = sampler.start(requests, way)

    def make(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"ends": sampler.denoised([requests[i] for i in rows], starts[rows], way)}

    title = f"{reference} steps, {layout}"
    ends = cache.rows(setting.work / f"many-steps-{key}", len(requests), make, 16, title)["ends"]
    file = setting.work / f"timesteps-{key}-{solver}.json" if kept else None
    return Goal(sampler, solver, strength, requests, starts, np.asarray(ends), file)


def choose(chosen_on: Goal, fresh: Goal, steps: int) -> dict:
    """The best timesteps and the solver's own, with their deviations on both sets of requests."""
    bundle = chosen_on.sampler.bundle
    way = bundle.trajectory(chosen_on.solver, steps, chosen_on.strength)
    own = tuple(int(t) for t in way.timesteps)
    best = search(chosen_on.distance, own)
    before, after = fresh.deviations(own), fresh.deviations(best)
    return {
        "solver": chosen_on.solver,
        "strength": chosen_on.strength,
        "steps": steps,
        "own": {"timesteps": own, "distance": chosen_on.distance(own)},
        "chosen": {"timesteps": best, "distance": chosen_on.distance(best)},
        "fresh": {
            "own": statistics.mean(before),
            "chosen": statistics.mean(after),
            "gain": statistics.mean(after - before),
        },
    }


def draw(rows: Sequence[dict]):
    """The deviation on fresh requests over the steps, a panel for each start."""
    strengths = sorted({row["strength"] for row in rows})
    page, panels = pages.figure(4.2 * len(strengths), 3.4, len(strengths))
    for axes, strength in zip(np.atleast_1d(panels), strengths, strict=True):
        for solver in dict.fromkeys(row["solver"] for row in rows):
            some = [r for r in rows if (r["strength"], r["solver"]) == (strength, solver)]
            for name, style in (("own", "--"), ("chosen", "-")):
                values = np.array([row["fresh"][name] for row in some])
                at = [row["steps"] for row in some]
                axes.errorbar(
                    at, values[:, 0], values[:, 1], ls=style, capsize=2, label=f"{solver}, {name}"
                )
        axes.set(xlabel="steps", title=f"strength {strength:g}", ylim=(0, None))
        axes.set_xticks(sorted({row["steps"] for row in rows}))
        axes.legend(fontsize=8)
    np.atleast_1d(panels)[0].set_ylabel("distance")
    return page


def lines(rows: Sequence[dict], count: int, reference: int) -> list[str]:
    """The body of the page."""
    cells = [
        [
            row["solver"],
            "noise" if row["strength"] == 1 else f"layouts, {row['strength']:g}",
            str(row["steps"]),
            *(", ".join(map(str, row[name]["timesteps"])) for name in ("own", "chosen")),
            *(plus_minus(row["fresh"][name], 1, 3) for name in ("own", "chosen", "gain")),
        ]
        for row in rows
    ]
    return [
        f"The timesteps were chosen on {count} requests of each start, by how near the clean "
        f"latents come to those of {reference} steps of the default solver from the same noise "
        "(root mean square). The last three columns measure that distance on as many other "
        "requests: with the timesteps that the solver visits by itself, with the chosen ones, and "
        "the difference in pairs.",
        "",
        *table(
            [
                *("solver", "start", "steps", "its own timesteps", "chosen timesteps"),
                *("distance of its own", "of the chosen", "difference"),
            ],
            cells,
        ),
        "",
        "`--timesteps` takes them. Near in latents is not the same as judged alike: "
        "[few steps](few_steps.md) shows what judges say of fewer steps.",
    ]


@click.command()
@settings.options
@click.option("--solver", "solvers", multiple=True, help="By default the bundle's.")
@click.option("--steps", multiple=True, type=int, default=(2, 3, 4), show_default=True)
@click.option("--count", default=32, show_default=True, help="Requests to choose on.")
@click.option("--reference", default=32, show_default=True, help="Steps to come near to.")
def main(setting: Setting, solvers, steps, count, reference):
    """Search the timesteps of few-step schedules, from layouts and from noise alone."""
    setting.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for layout in ("bank", "none"):
        for solver in solvers or (setting.bundle.defaults.solver,):
            here, there = (
                goal(setting, solver, layout, numbers, reference, kept)
                for numbers, kept in ((range(count), True), (range(count, 2 * count), False))
            )
            for number in steps:
                rows.append(choose(here, there, number))
                click.echo(f"{solver}, {number} steps: {rows[-1]['chosen']}")
    text = lines(rows, count, reference)
    setting.report("timesteps", "Timesteps of few steps", {"rows": rows}, text, draw(rows))


if __name__ == "__main__":
    main()
