"""AffectNet's layout: a file of its label beside each image, or CSV files (Mollahosseini 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synfer_rt.data.datasets.items import IMAGES, Found, Label, item, label_of
from synfer_rt.data.datasets.tables import table


def affectnet(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """AffectNet: `annotations/N_exp.npy` beside `images/N.jpg`, or its CSV files."""
    scheme = label_scheme or "affectnet-8"
    if not any(file.name.endswith("_exp.npy") for file in files):
        yield from table(root, files, scheme)
        return
    present = set(files)
    for file in files:
        if file.suffix.lower() not in IMAGES:
            continue
        annotation = file.parent.parent / "annotations" / f"{file.stem}_exp.npy"
        if annotation not in present:
            yield item(root, file, Label(None, f"it has no {annotation.name}"), None)
            continue
        try:
            with annotation.open("rb") as file_of_label:
                value = np.lib.format.read_array(file_of_label, allow_pickle=False).item()
        except Exception as error:  # what a damaged header says, numpy may believe
            yield item(
                root, file, Label(None, f"{annotation.name} cannot be read ({error})", ""), None
            )
        else:
            yield item(root, file, label_of(value, scheme), None)
