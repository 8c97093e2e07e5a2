"""What a backend or a precision costs in quality: the evaluation repeated, on the same requests.

    python -m reference.variants --fer FILE --out docs/results/variants.md \\
        --variant engines/synfer-mini,onnxruntime-cpu --variant engines/synfer-mini,openvino-cpu \\
        --variant INT8_BUNDLE,onnxruntime-cpu --variant engines/synfer-mini,onnxruntime-cpu,fast

The images of each variant are compared with those of the first of its quality. Samples are kept in
`--work`, where `reference.evaluate` has already written the shipped bundle's expressions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from reference import classifiers
from reference.evaluation import action_units
from reference.evaluation.expression import judge_images
from reference.evaluation.pages import machine, percent
from reference.evaluation.sampling import SEED, kept
from reference.tasks import CLASSES
from synfer_rt.backends.computation import computation
from synfer_rt.bundle import open_bundle
from synfer_rt.bundle.qualities import BEST
from synfer_rt.sampling.requests import Request, Requests, make_requests
from synfer_rt.sampling.sampler import Sampler

COLUMNS = (
    "bundle", "quality", "weights", "backend", "computed in", "judge", "photo-trained `fer`",
    "AU control", "accepted", "same label", "difference",
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """A bundle at one of its qualities, and what runs it."""

    sampler: Sampler
    quality: str

    @classmethod
    def parse(cls, text: str, threads: int | None) -> Variant:
        """A variant from `BUNDLE,BACKEND` or `BUNDLE,BACKEND,QUALITY`."""
        directory, backend, quality = [*text.split(","), "", ""][:3]
        sampler = Sampler.of(open_bundle(Path(directory)), backend or "auto", threads)
        return cls(sampler, quality or BEST)

    def made(self, requests: Sequence[Request], work: Path, title: str) -> dict[str, np.ndarray]:
        """What `evaluation.sampling.sample` says of these requests."""
        way = self.sampler.bundle.trajectory(quality=self.quality)
        return kept(self.sampler, requests, way, work, f"{self.quality}, sampling {title}")

    def cells(self) -> list[str]:
        """What it is, for the table."""
        bundle = self.sampler.bundle
        computed = computation(bundle, self.sampler.backend)
        return [
            f"{bundle.name} {bundle.version} `{bundle.bundle_hash[:12]}`",
            self.quality,
            bundle.engines["denoiser"].precision,
            computed.backend,
            computed.precision,
        ]


def judged(images: np.ndarray, requests: Sequence[Request], judge, fer: Path | None) -> list[str]:
    """The accuracies of the judges, for the table."""
    asked = np.array([CLASSES.index(request.label) for request in requests])
    report = judge_images(images, asked, judge, fer)
    return [
        f"{percent(report[name]['accuracy'])} ± {percent(report[name]['half_width'])}"
        if name in report
        else ""
        for name in ("judge", "fer")
    ]


def compared(made: dict[str, np.ndarray], first: dict[str, np.ndarray]) -> list[str]:
    """How images and labels differ from those of the first variant, for the table."""
    apart = np.abs(np.asarray(made["images"], np.int16) - first["images"]).mean()
    same = np.mean(made["labels"] == first["labels"])
    return [percent(float(np.mean(made["accepted"]))), percent(float(same)), f"{apart:.3f}"]


def read_units(variant: Variant, every: Requests, faces: int, reader: Any, work: Path) -> str:
    """The mean rank correlation of requested and read units, for the table."""
    sweeps = action_units.sweeps(every, action_units.MAIN, faces)
    read = classifiers.predict(reader, np.asarray(variant.made(sweeps, work, "sweeps")["images"]))
    shaped = read.reshape(len(action_units.MAIN), faces, -1, read.shape[1])
    units = action_units.sweep_correlations(shaped, action_units.MAIN)
    return f"{np.mean(list(units.values())):.3f}"


@click.command()
@click.option(
    "--variant", "variants", multiple=True, required=True, metavar="BUNDLE,BACKEND[,QUALITY]"
)
@classifiers.directory_option("classifier_directory")
@click.option("--fer", type=Path)
@click.option("--out", type=Path, required=True, help="Markdown file.")
@click.option("--work", type=Path, default=Path("build/evaluation"), show_default=True)
@click.option("--per-class", default=70)
@click.option("--faces", default=4, type=click.IntRange(min=2), help="Faces of the AU sweeps.")
@click.option("--threads", type=int)
def main(variants, classifier_directory, fer, out, work, per_class, faces, threads):
    """Judge every variant and write the table."""
    import torch

    torch.set_num_threads(threads or 1)
    judge = classifiers.load(classifier_directory, "judge")
    reader = classifiers.load(classifier_directory, "au-reader")
    lines = [
        "# What backend and precision cost in quality",
        "",
        f"Written by `python -m reference.variants` on {time.strftime('%Y-%m-%d')} ({machine()}). "
        f"Every row has the same requests and noise: {per_class} images a class, and AU sweeps on "
        f"{faces} faces, at the model's defaults of the quality. *weights* is how the denoiser's "
        "are stored, *computed in* the precision of the denoiser, then the other engines that "
        "compute in bfloat16. Accuracies are percentages ([results](../results.md) describes the "
        "judges). *AU control* is the mean rank correlation with the request over the "
        f"{len(action_units.MAIN)} main units. *accepted* is the percentage that the vote "
        "accepts, *same label* that of the images with the same label after the vote as in the "
        "first row of the quality, "
        "*difference* the mean difference from its images, in levels of 255.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    firsts: dict[str, dict[str, np.ndarray]] = {}
    for text in variants:
        variant = Variant.parse(text, threads)
        every = make_requests(variant.sampler.bundle, seed=SEED)
        requests = every[: per_class * len(CLASSES)]
        made = variant.made(requests, work, "expressions")
        first = firsts.setdefault(variant.quality, made)
        cells = [
            *variant.cells(),
            *judged(np.asarray(made["images"]), requests, judge, fer),
            read_units(variant, every, faces, reader, work),
            *compared(made, first),
        ]
        lines.append(f"| {' | '.join(cells)} |")
        click.echo(lines[-1])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
