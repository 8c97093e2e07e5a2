"""The effect of semantic guidance by strength, start and frequency.

python -m reference.experiments.guidance_sweep --renders DIR
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import click
import numpy as np

from reference import classifiers
from reference.evaluation import pages, statistics
from reference.evaluation.diversity import SPLITS, held_out, pooled_features
from reference.evaluation.pages import beyond_zero, mean_spread, plus_minus, table
from reference.experiments import setting as settings
from reference.experiments.sampling import Recipe, sample_set
from reference.experiments.setting import Setting
from reference.tasks import CLASSES
from synfer_rt.sampling.guidance import START

SEED = 31


def numbers(text: str) -> list[float]:
    """`0.1,0.2` as numbers."""
    return [float(part) for part in text.split(",")]


def draw(found: Sequence[Mapping[str, Any]], base: tuple[float, float], form: str) -> Any:
    """A figure of the judge's accuracy over strength, a line for each start and frequency."""
    figure, axes = pages.figure()
    axes.axhline(100 * base[0], color="grey", ls=":", label="without guidance")
    for every, start in dict.fromkeys((row["every"], row["start"]) for row in found):
        line = [row for row in found if (row["every"], row["start"]) == (every, start)]
        values = 100 * np.array([row["judge"] for row in line])
        label = f"from {start:.2g} of the steps, every {every}"
        at = [row["strength"] for row in line]
        axes.errorbar(at, values[:, 0], pages.bars(values), label=label, capsize=3)
    axes.set(xscale="log", xlabel=f"strength ({form})", ylabel="judge reads the label (%)")
    axes.legend(fontsize=8)
    return figure


def page(
    found: Sequence[Mapping[str, Any]],
    base: tuple[float, float],
    frechet: tuple[float, float],
    about: str,
) -> list[str]:
    """The lines of the page; `about` describes its rows."""
    gains = {
        f"{row['strength']:g} from {row['start']:.2f}, every {row['every']}": row["gain"]
        for row in found
    }
    return [
        f"{about} Without guidance, the judge reads the label in {plus_minus(base)} % of the "
        f"samples, at a Fréchet distance of {mean_spread(frechet)} from as many held-out renders. "
        "With so few images this distance is too large, in all rows alike.",
        "",
        "- *gain*: the points that guidance adds, in pairs of the same requests and noise.",
        f"- *Fréchet*: the mean and, in brackets, the standard deviation over {SPLITS} random "
        "splits of the renders by person, the same in every row; it is not a 95 % interval.",
        "",
        *table(
            ["strength", "start", "every", "judge", "gain", "Fréchet"],
            [
                [
                    f"{row['strength']:g}",
                    f"{row['start']:.2f}",
                    str(row["every"]),
                    plus_minus(row["judge"]),
                    plus_minus(row["gain"]),
                    mean_spread(row["frechet"]),
                ]
                for row in found
            ],
        ),
        "",
        f"Gains whose interval lies {beyond_zero(gains)}.",
    ]


@click.command()
@settings.options
@click.option("--form", default="latent", show_default=True)
@click.option("--strengths", default="0.02,0.05,0.1,0.2", show_default=True, metavar="F,F,…")
@click.option("--starts", default=f"{START:.3f},0.7", show_default=True, metavar="F,F,…")
@click.option("--every", "everies", default="1,2", show_default=True, metavar="N,N,…")
@click.option("--layouts", is_flag=True, help="Start from the bundle's layouts.")
@click.option("--per-class", default=12, show_default=True)
def main(setting: Setting, form, strengths, starts, everies, layouts, per_class):
    """Accuracy by the judge over strength, a line for each start and frequency."""
    count = per_class * len(CLASSES)
    plain = Recipe("plain", layouts="noised" if layouts else "none")
    data = setting.data
    held = data.labelled()
    reals = pooled_features(setting.judge, np.asarray(data.images[held]))
    real = held_out(reals, data.annotations["identity"][held], count)

    def measure(recipe: Recipe) -> tuple[np.ndarray, tuple[float, float]]:
        made = sample_set(setting.sampler, recipe, count, SEED, setting.work)
        read = classifiers.predict(setting.judge, made["images"]).argmax(1)
        features = pooled_features(setting.judge, made["images"])
        distances = real.frechet(features[: real.size])
        return read == made["requested"], statistics.spread(distances)

    before, frechet = measure(plain)
    base = statistics.share(before)
    found = []
    for every in numbers(everies):
        for start in numbers(starts):
            for strength in numbers(strengths):
                guided = replace(
                    plain, name=f"{strength:g}", form=form, strength=strength, start=start
                )
                right, distance = measure(replace(guided, every=int(every)))
                found.append(
                    {
                        "every": int(every),
                        "start": start,
                        "strength": strength,
                        "judge": statistics.share(right),
                        "gain": statistics.gain(right, before),
                        "frechet": distance,
                    }
                )
    about = f"Form `{form}`, {count} samples a row, layouts {'on' if layouts else 'off'}."
    lines = page(found, base, frechet, about)
    figure = draw(found, base, form)
    results = {"form": form, "images": count, "plain": base, "rows": found}
    setting.report("guidance_sweep", "Strength of semantic guidance", results, lines, figure)


if __name__ == "__main__":
    main()
