"""What a backend or a precision costs in quality: the evaluation repeated, on the same requests.

    python -m reference.variants --fer FILE --out docs/results/variants.md \\
        --variant engines/synfer-mini,onnxruntime-cpu --variant engines/synfer-mini,openvino-cpu \\
        --variant INT8_BUNDLE,onnxruntime-cpu

The images of each variant are compared with those of the first. Samples are kept in `--work`, where
`reference.evaluate` has already written the shipped bundle's expressions.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import click
import numpy as np

from reference import classifiers
from reference.evaluation import action_units
from reference.evaluation.expression import judge_images
from reference.evaluation.pages import machine, percent
from reference.evaluation.sampling import SEED, kept
from reference.tasks import CLASSES
from synfer_rt.bundle import open_bundle
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler


@click.command()
@click.option("--variant", "variants", multiple=True, required=True, metavar="BUNDLE,BACKEND")
@classifiers.directory_option("classifier_directory")
@click.option("--fer", type=Path)
@click.option("--out", type=Path, required=True, help="Markdown file.")
@click.option("--work", type=Path, default=Path("build/evaluation"), show_default=True)
@click.option("--per-class", default=70)
@click.option("--faces", default=4, type=click.IntRange(min=2), help="Faces of the AU sweeps.")
@click.option("--threads", type=int)
def main(variants, classifier_directory, fer, out, work, per_class, faces, threads):
    """Judge every variant at the bundle's defaults and write the table."""
    import torch

    torch.set_num_threads(threads or 1)
    judge = classifiers.load(classifier_directory, "judge")
    reader = classifiers.load(classifier_directory, "au-reader")
    lines = [
        "# What backend and precision cost in quality",
        "",
        f"Written by `python -m reference.variants` on {time.strftime('%Y-%m-%d')} ({machine()}). "
        f"Every row has the same requests and noise: {per_class} images a class, and AU sweeps on "
        f"{faces} faces, at the model's defaults. Accuracies are percentages "
        f"([results](../results.md) describes the judges). AU control is the mean rank "
        f"correlation with the request over the {len(action_units.MAIN)} main units. The last "
        "column is the mean difference from the images of the first row, in levels of 255.",
        "",
        "| bundle | denoiser | backend | judge | photo-trained `fer` | AU control | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    first = None
    for variant in variants:
        directory, _, backend = variant.partition(",")
        bundle = open_bundle(Path(directory))
        sampler = Sampler.of(bundle, backend or "auto", threads)
        way, every = bundle.trajectory(), make_requests(bundle, seed=SEED)
        requests = every[: per_class * len(CLASSES)]
        sampled = partial(kept, sampler, way=way, work=work)
        images = np.asarray(sampled(requests, title="sampling expressions")["images"])
        asked = np.array([CLASSES.index(request.label) for request in requests])
        report = judge_images(images, asked, judge, fer)
        sweeps = action_units.sweeps(every, action_units.MAIN, faces)
        swept = np.asarray(sampled(sweeps, title="sampling sweeps")["images"])
        read = classifiers.predict(reader, swept)
        units = action_units.sweep_correlations(
            read.reshape(len(action_units.MAIN), faces, -1, read.shape[1]), action_units.MAIN
        )
        first = images if first is None else first
        cells = [
            f"{bundle.name} {bundle.version} `{bundle.bundle_hash[:12]}`",
            bundle.engines["denoiser"].precision,
            sampler.backend,
            *(
                f"{percent(report[name]['accuracy'])} ± {percent(report[name]['half_width'])}"
                if name in report
                else ""
                for name in ("judge", "fer")
            ),
            f"{np.mean(list(units.values())):.3f}",
            f"{np.abs(images.astype(np.int16) - first).mean():.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        click.echo(lines[-1])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
