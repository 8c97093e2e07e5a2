"""Accuracy of labels: the given ones, each annotator's and the vote's; and accuracy by coverage.

    python -m reference.experiments.label_quality --renders DIR

The true labels of re-rendered faces are known. The annotators label these faces as they are, and
again after the augmentation of the annotators' own training, applied twice. A share of the given
labels is made wrong. One face of every person is also degraded in ways that no annotator was
trained on.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import click
import numpy as np
import torch
from PIL import Image

from reference import classifiers
from reference.evaluation import pages, statistics
from reference.evaluation.pages import plus_minus, table
from reference.experiments import setting as settings
from reference.experiments.sampling import Recipe, sample_set
from reference.experiments.setting import Setting
from reference.tasks import CLASSES
from synfer_rt.export.training import cache
from synfer_rt.judging.acceptance import RunningQuantile
from synfer_rt.judging.voting import Opinion, Verdict, average, vote

NOISE = (0.0, 0.1, 0.2, 0.4)
RATES = np.linspace(0.2, 1.0, 17)
SEED = 0
CLEAN = "re-rendered faces"


def _jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=10)
    return Image.open(file).convert("RGB")


def _coarse(image: Image.Image) -> Image.Image:
    small = image.resize((16, 16), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _with_border(image: Image.Image, border: int) -> Image.Image:
    pixels, around = np.asarray(image), (border, border)
    return Image.fromarray(np.pad(pixels, (around, around, (0, 0)), "reflect"))


def _turned(image: Image.Image) -> Image.Image:
    border, size = image.width // 4, image.width
    turned = _with_border(image, border).rotate(20, Image.Resampling.BICUBIC)
    return turned.crop((border, border, border + size, border + size))


def _loose(image: Image.Image) -> Image.Image:
    border = round(image.width * (1 - 0.72) / 2)
    inner = image.width - 2 * border
    return _with_border(image.resize((inner, inner), Image.Resampling.BICUBIC), border)


UNSEEN: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 10": _jpeg,
    "detail of 16 pixels": _coarse,
    "turned by 20 degrees, corners reflected": _turned,
    "face at 0.72 of its size, border reflected": _loose,
}
"""Degradations that no annotator was trained on, for square images of 64 pixels."""


def spoilt(images_u8: np.ndarray, how: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """The uint8 images [n, S, S, 3], each changed by `how`."""
    return np.stack([np.asarray(how(Image.fromarray(image))) for image in images_u8])


def augmented_twice(images_u8: np.ndarray, seed: int) -> np.ndarray:
    """The uint8 images [n, S, S, 3] after `classifiers.augment`, applied twice."""
    generator = torch.Generator().manual_seed(seed)
    images = classifiers.as_input(images_u8)
    for _ in range(2):
        images = classifiers.augment(images, generator)
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte()
    return pixels.permute(0, 2, 3, 1).numpy()


def with_noise(labels: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Class indices [n], of which exactly the share `rate`, rounded, are random wrong classes."""
    wrong = rng.permutation(len(labels))[: round(rate * len(labels))]
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + rng.integers(1, len(CLASSES), len(wrong))) % len(CLASSES)
    return noisy


def opinions(setting: Setting, images_u8: np.ndarray, name: str) -> list[Opinion]:
    """The opinions of the bundle's annotators on uint8 images [n, H, W, 3]."""
    annotators, bundle = setting.sampler.annotators, setting.bundle

    def read(numbers: np.ndarray) -> dict[str, np.ndarray]:
        images = images_u8[numbers].transpose(0, 3, 1, 2).astype(np.float32) / 255
        return {said.annotator: said.probabilities for said in annotators.opinions(images)}

    key = cache.key(bundle.bundle_hash, setting.computation, cache.digest(images_u8))
    found = cache.rows(
        setting.work / f"opinions-{key}", len(images_u8), read, 64, f"reading {name}"
    )
    return [
        Opinion(head.annotator, head.label_scheme, np.asarray(found[head.annotator]), head.mapping)
        for _, head in bundle.heads
    ]


def right(given: list[Opinion], truth: np.ndarray, scheme: str) -> np.ndarray:
    """Whether the vote of these opinions equals the truth, bool [n]."""
    return average(given, scheme).argmax(1) == truth


def coverage_curve(
    verdicts: list[Verdict], truth: np.ndarray, people: np.ndarray
) -> list[tuple[float, float, float]]:
    """Coverage, accuracy and its half-width for every rate of RATES, by adaptive thresholds.

    Intervals allow for images of one person being alike; `people` int64 [n] says whose each is.
    """
    points = []
    correct = np.array([v.label == CLASSES[t] for v, t in zip(verdicts, truth, strict=True)])
    for rate in RATES:
        accept = RunningQuantile(float(rate))
        kept = np.array([accept(verdict) for verdict in verdicts])
        points.append((float(kept.mean()), *statistics.share(correct[kept], people[kept])))
    return points


def accuracies(said: list[Opinion], truth: np.ndarray, people: np.ndarray, scheme: str) -> dict:
    """Accuracy of each member and of the vote, and the gain of the vote over the best member.

    Intervals allow for images of one person being alike; `people` int64 [n] says whose each is.
    """
    members = {o.annotator: right([o], truth, scheme) for o in said}
    voted = right(said, truth, scheme)
    best = max(members, key=lambda member: members[member].mean())
    return {
        "images": len(truth),
        "members": {member: statistics.share(ok, people) for member, ok in members.items()},
        "vote": statistics.share(voted, people),
        "best_member": best,
        "vote_over_best_member": statistics.gain(voted, members[best], people),
    }


def together(sets: Sequence[list[Opinion]]) -> list[Opinion]:
    """The opinions of the same annotators on several sets of images, joined into one set."""
    return [
        replace(parts[0], probabilities=np.concatenate([part.probabilities for part in parts]))
        for parts in zip(*sets, strict=True)
    ]


def examine(said: list[Opinion], truth: np.ndarray, people: np.ndarray, scheme: str) -> dict:
    """All measures of opinions on one set of images whose true classes are known."""
    report: dict = {
        **accuracies(said, truth, people, scheme),
        "curves": {
            "vote": coverage_curve(vote(said, scheme, [None] * len(truth)), truth, people),
            **{
                o.annotator: coverage_curve(vote([o], scheme, [None] * len(truth)), truth, people)
                for o in said
            },
        },
        "noise": [],
    }
    for rate in NOISE:
        given = with_noise(truth, rate, np.random.default_rng((SEED, round(100 * rate))))
        verdicts = vote(said, scheme, [CLASSES[i] for i in given])
        agreed = np.array([not verdict.rectified for verdict in verdicts])
        report["noise"].append(
            {
                "rate": rate,
                "given": statistics.share(given == truth, people),
                "agreed": statistics.share(given[agreed] == truth[agreed], people[agreed]),
                "coverage": float(agreed.mean()),
            }
        )
    return report


def examine_sets(
    sets: Mapping[str, list[Opinion]], truth: np.ndarray, people: np.ndarray, scheme: str
) -> dict:
    """All measures of each view of the same faces, `sets`, and accuracies on all views, `both`."""
    truths, persons = (np.tile(x, len(sets)) for x in (truth, people))
    return {
        "sets": {name: examine(said, truth, people, scheme) for name, said in sets.items()},
        "both": accuracies(together(list(sets.values())), truths, persons, scheme),
    }


def examine_unseen(
    setting: Setting,
    clean: np.ndarray,
    said: list[Opinion],
    truth: np.ndarray,
    people: np.ndarray,
) -> dict:
    """`accuracies` on one face of every person, as it is and degraded in every way of UNSEEN.

    `clean` are all faces, uint8 [n, S, S, 3], and `said` the opinions on them.
    """
    rows, scheme = statistics.first_of_each(people), setting.bundle.label_scheme
    sets = {"as they are": [replace(o, probabilities=o.probabilities[rows]) for o in said]}
    for name, how in UNSEEN.items():
        sets[name] = opinions(setting, spoilt(clean[rows], how), name)
    return {n: accuracies(one, truth[rows], people[rows], scheme) for n, one in sets.items()}


def examine_samples(setting: Setting, recipe: Recipe, count: int) -> dict:
    """How often the judge reads the requested label in samples, and the label after the vote."""
    made = sample_set(setting.sampler, recipe, count, 11, setting.work)
    read = classifiers.predict(setting.judge, made["images"]).argmax(1)
    requested, labelled = made["requested"] == read, made["label"] == read
    return {
        "images": count,
        "requested": statistics.share(requested),
        "after_vote": statistics.share(labelled),
        "gain": statistics.gain(labelled, requested),
        "accepted": statistics.share(requested[made["accepted"]]),
        "coverage": float(np.mean(made["accepted"])),
    }


def accuracy_table(reports: Mapping[str, dict]) -> list[str]:
    """The Markdown table of `accuracies` on several sets of images."""
    members = list(next(iter(reports.values()))["members"])
    rows = [
        [
            name,
            *(plus_minus(report["members"][member]) for member in members),
            plus_minus(report["vote"]),
            plus_minus(report["vote_over_best_member"]),
        ]
        for name, report in reports.items()
    ]
    return table(["images", *members, "vote", "vote - best member"], rows)


def noise_table(reports: Mapping[str, dict]) -> list[str]:
    """The Markdown table of given labels of which a share is wrong."""
    return table(
        ["images", "wrong labels", "given label right", "agreed: share", "agreed: right"],
        [
            [
                name,
                f"{100 * row['rate']:.0f} %",
                plus_minus(row["given"]),
                f"{100 * row['coverage']:.1f}",
                plus_minus(row["agreed"]),
            ]
            for name, report in reports.items()
            for row in report["noise"]
        ],
    )


def samples_table(reports: Mapping[str, dict]) -> list[str]:
    """The Markdown table of `examine_samples` for each recipe."""
    return table(
        ["samples", "requested", "after the vote", "gain", "accepted: share", "right"],
        [
            [
                name,
                *(plus_minus(one[key]) for key in ("requested", "after_vote", "gain")),
                f"{100 * one['coverage']:.1f}",
                plus_minus(one["accepted"]),
            ]
            for name, one in reports.items()
        ],
    )


def page(results: dict) -> list[str]:
    """The lines of the page."""
    faces = results["sets"][CLEAN]["images"]
    people = results["unseen"]["as they are"]["images"]
    lines = [
        f"Accuracy in percent on {faces} faces of held-out people with known labels. "
        "Half-widths take into account that images of one person, and both views of an image, are "
        "alike. *augmented twice as in training*: turned, shifted, blurred, brightened and made "
        "noisy as in the annotators' own training, twice over, and so hardly new to them.",
        "",
        *accuracy_table({**results["sets"], "both": results["both"]}),
        "",
        f"One render of each of {people} people, degraded in ways that no annotator was "
        "trained on. These are still renders and say nothing about photographs.",
        "",
        *accuracy_table(results["unseen"]),
        "",
        "Here a share of the labels was made wrong. *agreed* are the labels that the vote agrees "
        "with. Where it disagrees, it replaces the label by its own; all labels are then as "
        "accurate as the vote is above.",
        "",
        *noise_table(results["sets"]),
    ]
    if "samples" in results:
        count = next(iter(results["samples"].values()))["images"]
        lines += [
            "",
            f"{count} samples of each kind. The vote can correct labels only of samples that "
            "fail, so there is also a row without classifier-free guidance. A label is right if "
            "the judge, itself a network, reads it. *gain*: how many points more are right after "
            "the vote, which replaces labels, than as requested. *accepted*: the vote reads the "
            "requested label.",
            "",
            *samples_table(results["samples"]),
        ]
    return [
        *lines,
        "",
        "The figure shows the accuracy of the labels that are accepted by per-class thresholds "
        "that adapt to an acceptance rate (`--accept-rate`).",
    ]


def draw(results: dict):
    """A figure of accuracy over coverage, with a panel for each set of images."""
    figure, panels = pages.figure(9, 3.8, len(results["sets"]))
    for axes, (name, report) in zip(np.atleast_1d(panels), results["sets"].items(), strict=True):
        for member, points in report["curves"].items():
            coverage, *shares = (100 * np.array(points)).T
            interval = pages.bars(np.transpose(shares))
            axes.errorbar(coverage, shares[0], interval, label=member, capsize=2, lw=1.2)
        axes.set(title=name, xlabel="images accepted (%)", ylabel="of these, labelled right (%)")
        axes.grid(alpha=0.3)
    np.atleast_1d(panels)[0].legend(fontsize=8)
    return figure


@click.command()
@settings.options
@click.option("--images", "most", type=int, help="Held-out renders; default all.")
@click.option("--samples", default=480, show_default=True, help="Of each kind; 0 for none.")
def main(setting: Setting, most, samples):
    """Accuracy of labels before and after the vote."""
    data = setting.data
    rows = data.labelled()[:most]
    people = data.annotations["identity"][rows]
    truth = data.annotations["label"][rows].astype(np.int64)
    clean = np.asarray(data.images[rows])
    sets = {
        CLEAN: clean,
        "the same, augmented twice as in training": augmented_twice(clean, SEED),
    }
    said = {name: opinions(setting, images, name) for name, images in sets.items()}
    results = examine_sets(said, truth, people, setting.bundle.label_scheme)
    results["unseen"] = examine_unseen(setting, clean, said[CLEAN], truth, people)
    if samples:
        recipes = Recipe("defaults"), Recipe("no classifier-free guidance (1.0)", guidance=1.0)
        results["samples"] = {
            recipe.name: examine_samples(setting, recipe, samples) for recipe in recipes
        }
    setting.report("label_quality", "Label quality", results, page(results), draw(results))


if __name__ == "__main__":
    main()
