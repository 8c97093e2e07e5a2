"""Generate the labelled reference faces as shards of 1024 images.

``python -m reference.faces.dataset --out DIR --count N --size 128 --seed S --workers W``

Shard k is ``DIR/{k:05d}.npz`` and depends on k and the recipe alone, so that runs resume and the
number of workers does not matter. ``--first-shard`` adds shards of another recipe, such as
``--random-share 1 --alone 25 26``, to a set that is there. Keys of a shard of n images:

images       uint8 [n, S, S, 3] sRGB
label        int8 [n], index into ``label_names`` (AffectNet-8); -1 for random action units
au           float16 [n, 41] in 0..1, in the order of ``au_names`` (OpenGraphAU)
eye_closure  float16 [n], AU 43 in 0..1
identity     int32 [n], never shared between shards
age          float16 [n]: 0 child, .33 young, 1 old
gender       float16 [n]: 0 female, 1 male
ancestry     float16 [n, 3], weights in the order of ``ancestry_names``
pose         float16 [n, 3]: yaw, pitch, roll in radians. Positive yaw turns the face to the
             image's right (the subject's left), positive pitch looks down, positive roll tips the
             crown to the image's left
light        float16 [n, 4]: key azimuth (radians, positive from the image's right), key elevation
             (radians, positive from above), key strength (about .9..1.75), ambient (0..1)
hair_style   int8 [n], index into ``hair_style_names``
hair_color   int8 [n], index into ``hair_color_names``
beard        float16 [n] in 0..1 (to .35 stubble, above it a full beard)
background   float16 [n], mean brightness in 0..1
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reference.faces import appearance, expressions, film, rig, scene
from synfer_rt.vocabulary.facs import OPENGRAPHAU_41

if TYPE_CHECKING:
    from reference.faces.render import Renderer

SHARD = 1024
"""Images in a full shard."""

_DTYPES = {
    "label": np.int8, "au": np.float16, "eye_closure": np.float16, "identity": np.int32,
    "age": np.float16, "gender": np.float16, "ancestry": np.float16, "pose": np.float16,
    "light": np.float16, "hair_style": np.int8, "hair_color": np.int8, "beard": np.float16,
    "background": np.float16,
}  # fmt: skip
_NAMES = {
    "label_names": expressions.CLASSES,
    "au_names": OPENGRAPHAU_41,
    "ancestry_names": appearance.ANCESTRIES,
    "hair_style_names": appearance.HAIR_STYLES,
    "hair_color_names": appearance.HAIR_COLORS,
}


@dataclass(frozen=True)
class Recipe:
    """size: pixels. per_identity: images of a person. random_share: of images without a class.

    alone: action units; each image without a class shows exactly one of them. Empty: any units, in
    combinations too.
    """

    seed: int = 0
    size: int = 128
    per_identity: int = 6
    random_share: float = 0.35
    alone: tuple[int, ...] = ()


def _labels(rng: np.random.Generator, recipe: Recipe) -> list[int]:
    """Classes of one person's images: -1 with probability random_share, else all in turn."""
    labels: list[int] = []
    deck: list[int] = []
    for _ in range(recipe.per_identity):
        if rng.random() < recipe.random_share:
            labels.append(-1)
            continue
        deck = deck or rng.permutation(len(expressions.CLASSES)).tolist()
        labels.append(deck.pop())
    return labels


def generate(renderer: Renderer, recipe: Recipe, shard: int, count: int) -> dict[str, np.ndarray]:
    """Arrays of the first `count` images of a shard."""
    rng = np.random.default_rng([recipe.seed, shard])
    images = np.empty((count, recipe.size, recipe.size, 3), np.uint8)
    rows: list[dict[str, object]] = []
    person = shard * -(-SHARD // recipe.per_identity)
    while len(rows) < count:
        identity = appearance.sample_identity(rng)
        for label in _labels(rng, recipe):
            if label < 0:
                aus = expressions.sample_random(rng, recipe.alone)
            else:
                aus = expressions.sample_expression(rng, expressions.CLASSES[label])
            pose, light = scene.sample_pose(rng), scene.sample_light(rng)
            look = film.sample_film(rng)
            if len(rows) == count:
                break
            rendered = renderer.render(identity, aus, pose, light, recipe.size)
            images[len(rows)] = film.develop(rendered, look)
            rows.append(
                {
                    "label": label,
                    "au": rig.au_vector(aus),
                    "eye_closure": max(aus.get(43, (0.0, 0.0))),
                    "identity": person,
                    "age": identity.age,
                    "gender": identity.gender,
                    "ancestry": identity.ancestry,
                    "pose": (pose.yaw, pose.pitch, pose.roll),
                    "light": (light.azimuth, light.elevation, light.key_strength, light.ambient),
                    "hair_style": identity.hair_style,
                    "hair_color": identity.hair_color,
                    "beard": identity.beard,
                    "background": float(np.mean(light.background)),
                }
            )
        person += 1
    arrays = {key: np.array([row[key] for row in rows], dtype) for key, dtype in _DTYPES.items()}
    names = {k: np.array(v) for k, v in _NAMES.items()}
    return {"images": images, **arrays, **names, "recipe": np.array(repr(recipe))}


_renderer: Renderer | None = None


def _process_renderer() -> Renderer:
    """The process's own renderer: a GL context cannot cross a fork."""
    global _renderer
    if _renderer is None:
        from reference.faces.render import Renderer

        _renderer = Renderer()
    return _renderer


def write_shard(out: Path, recipe: Recipe, shard: int, count: int) -> int:
    """Write one shard, which gets its final name once it is whole; returns its image count.

    An existing shard is kept. Raises SystemExit if it has another recipe or count.
    """
    path = out / f"{shard:05d}.npz"
    if path.exists():
        with np.load(path) as arrays:
            there = str(arrays["recipe"]), len(arrays["label"])
        if there != (repr(recipe), count):
            raise SystemExit(f"{path} is of another run ({there[0]}); choose another --out.")
        return count
    arrays: dict[str, Any] = generate(_process_renderer(), recipe, shard, count)
    temporary = out / f".{shard:05d}.{os.getpid()}.tmp"
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.replace(path)
    return count


def main(out: Path, recipe: Recipe, count: int, workers: int = 1, first_shard: int = 0) -> None:
    """Generate `count` images into shards of `out`, from number `first_shard` on."""
    from multiprocessing import get_context

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    # One thread a worker: further numpy threads would only compete for the cores.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", LP_NUM_THREADS="0")
    out.mkdir(parents=True, exist_ok=True)
    sizes = [min(SHARD, count - start) for start in range(0, count, SHARD)]
    write = partial(write_shard, out, recipe)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("faces", total=count)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            pending = [pool.submit(write, k, n) for k, n in enumerate(sizes, first_shard)]
            for done in as_completed(pending):
                progress.advance(task, done.result())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Generate labelled reference faces.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--per-identity", type=int, default=6)
    parser.add_argument("--random-share", type=float, default=0.35)
    parser.add_argument("--alone", type=int, nargs="+", default=(), choices=rig.ACTION_UNITS)
    parser.add_argument("--first-shard", type=int, default=0, help="to add to a set")
    args = parser.parse_args()
    main(
        args.out,
        Recipe(args.seed, args.size, args.per_identity, args.random_share, tuple(args.alone)),
        args.count,
        args.workers,
        args.first_shard,
    )
