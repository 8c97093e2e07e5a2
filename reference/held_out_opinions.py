"""What the shipped model's annotators say of held-out renders, kept for tests of calibration.

    python -m reference.held_out_opinions --renders RUN/renders --out FILE.npz

`probabilities` float16 [annotators, N, classes] of the N labelled renders of people that no network
was trained on, their classes `truth` uint8 [N], and `people` uint16 [N].
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from reference import renders
from reference.tasks import CLASSES
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import open_bundle
from synfer_rt.judging.annotators import Annotators
from synfer_rt.vocabulary import label_schemes

_BATCH = 32


def opinions(annotators: Annotators, images: np.ndarray) -> np.ndarray:
    """Class probabilities float32 [annotators, N, classes] of images uint8 [N, H, W, 3]."""
    parts: list[np.ndarray] = []
    for begin in range(0, len(images), _BATCH):
        pixels = images[begin : begin + _BATCH].transpose(0, 3, 1, 2).astype(np.float32) / 255
        scheme = annotators.bundle.label_scheme
        said = annotators.opinions(pixels)
        parts.append(
            np.stack([label_schemes.convert(o.probabilities, o.scheme, scheme) for o in said])
        )
    return np.concatenate(parts, 1)


@click.command()
@click.option("--renders", "directory", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(directory: Path, out: Path) -> None:
    """Write what the annotators say of the held-out renders."""
    bundle = open_bundle()
    assert tuple(bundle.classes) == tuple(CLASSES)
    data = renders.load(directory, bundle.image_size[0])
    rows = data.labelled()
    annotators = Annotators(LoadedEngines(bundle, "onnxruntime-cpu", 1))
    np.savez_compressed(
        out,
        probabilities=opinions(annotators, data.images[rows]).astype(np.float16),
        truth=data.annotations["label"][rows].astype(np.uint8),
        people=(data.annotations["identity"][rows] // renders.HELD_OUT_SHARE).astype(np.uint16),
    )


if __name__ == "__main__":
    main()
