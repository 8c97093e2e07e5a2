"""What JPEG and WebP images of a dataset weigh and lose, and how their labels differ.

    python -m reference.experiments.image_formats

Sizes and losses are those of faces rendered at 512 pixels. Labels are those that `label` gives to
samples of the shipped bundle, whose annotators read 64 pixels, as PNG files and compressed.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from reference.evaluation.pages import machine, table
from reference.faces.dataset import Recipe, generate
from synfer_rt.api import Model, load
from synfer_rt.commands.invocation import typed
from synfer_rt.data.image_format import PNG, ImageFormat, image_format

SIZE, SEED = 512, 21
FORMATS = (PNG, *(image_format(name, q) for name in ("jpeg", "webp") for q in (85, 90, 95, 100)))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two images uint8 of one shape; infinite if equal."""
    error = np.square(one.astype(float) - other).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def decoded(file: bytes) -> np.ndarray:
    """The pixels of an image file, uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"))


def weighed(images: np.ndarray, format: ImageFormat) -> dict[str, Any]:
    """Bytes of a file on average, and the mean and the lowest PSNR of what it decodes to."""
    files = format.encode(images)
    losses = [psnr(image, decoded(file)) for image, file in zip(images, files, strict=True)]
    return {
        "format": format.name,
        "quality": format.quality,
        "bytes": sum(map(len, files)) / len(files),
        "psnr": None if format == PNG else float(np.mean(losses)),
        "lowest": None if format == PNG else min(losses),
    }


def labels_of(
    model: Model, images: Sequence[np.ndarray], format: ImageFormat
) -> tuple[list[str], np.ndarray]:
    """The labels and the probabilities [n, K] that `label` gives to files of the images."""
    with tempfile.TemporaryDirectory() as folder:
        for i, file in enumerate(format.encode(images)):
            Path(folder, f"{i:05d}.{format.suffix}").write_bytes(file)
        found = list(model.label(folder))
    return [one.label for one in found], np.array([list(x.probabilities.values()) for x in found])


def compared(model: Model, images: Sequence[np.ndarray]) -> Iterator[dict[str, Any]]:
    """For each lossy format, how its labels differ from those of the PNG files."""
    labels, probabilities = labels_of(model, images, PNG)
    for format in FORMATS[1:]:
        others, moved = labels_of(model, images, format)
        distance = np.abs(moved - probabilities).max(1)
        yield {
            "format": format.name,
            "quality": format.quality,
            "other labels": sum(a != b for a, b in zip(labels, others, strict=True)),
            "mean": float(distance.mean()),
            "largest": float(distance.max()),
        }


def page(about: dict[str, Any], sizes: list[dict[str, Any]], labels: list[dict[str, Any]]) -> str:
    """The report as Markdown."""
    whole = sizes[0]["bytes"]
    weights = [
        (
            row["format"],
            str(row["quality"] or ""),
            f"{row['bytes'] / 1000:.0f} kB",
            f"{row['bytes'] / whole:.0%}",
            "none is lost" if row["psnr"] is None else f"{row['psnr']:.1f} dB",
            "" if row["psnr"] is None else f"{row['lowest']:.1f} dB",
        )
        for row in sizes
    ]
    moves = [
        (
            row["format"],
            str(row["quality"]),
            f"{row['other labels']} of {about['samples']}",
            f"{row['mean']:.4f}",
            f"{row['largest']:.3f}",
        )
        for row in labels
    ]
    lines = [
        "# Image formats",
        "",
        f"Written by `{about['command']}` on {about['date']} ({about['machine']}; "
        f"{about['jpeg']}; {about['webp']}).",
        "",
        f"## Sizes and losses of {about['faces']} rendered faces of {SIZE} pixels",
        "",
        *table(("format", "quality", "a file", "of PNG", "mean PSNR", "lowest PSNR"), weights),
        "",
        "Renders have film grain, which no format compresses well.",
        "",
        f"## Labels of {about['samples']} samples of {about['bundle']} as files of 64 pixels",
        "",
        "`label` reads the compressed files and the PNG files. The difference of an image is that "
        "of the class whose probability moves most.",
        "",
        *table(("format", "quality", "other labels", "mean difference", "largest"), moves),
        "",
    ]
    return "\n".join(lines)


@click.command()
@click.option("--faces", default=32, show_default=True, help="Faces of 512 pixels to render.")
@click.option("--samples", default=256, show_default=True, help="Samples to label.")
@click.option("--out", type=Path, default=Path("docs/results"), show_default=True)
def main(faces: int, samples: int, out: Path) -> None:
    """Write OUT/image_formats.md and .json."""
    from reference.faces.render import Renderer

    recipe = Recipe(SEED, SIZE, per_identity=1, random_share=0.0)
    images = generate(Renderer(), recipe, 0, faces)["images"]
    sizes = [weighed(images, format) for format in FORMATS]
    model = load()
    made = [sample.image for sample in model.sample(count=samples)]
    labels = list(compared(model, made))
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "command": typed("python -m reference.experiments.image_formats"),
        "bundle": f"{model.bundle.name} {model.bundle.version}",
        "faces": faces,
        "samples": samples,
        **{name: image_format(name).encoder for name in ("jpeg", "webp")},
    }
    text = page(about, sizes, labels)
    (out / "image_formats.md").write_text(text)
    found = about | {"sizes": sizes, "labels": labels}
    (out / "image_formats.json").write_text(json.dumps(found, indent=2) + "\n")
    click.echo(text)


if __name__ == "__main__":
    main()
