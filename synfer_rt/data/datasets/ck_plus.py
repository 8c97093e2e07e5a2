"""CK+'s layout: sequences of frames, and a file of the label of each that has one (Lucey 2010)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from synfer_rt.data.datasets.items import IMAGES, Found, Label, item, label_of

LABEL_FILE = "_emotion.txt"
"""How the name of a label's file ends, after that of the sequence's last frame."""


def ck_plus(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """CK+: `S005_001_00000011.png` shows what `S005_001_00000011_emotion.txt` says.

    Of a sequence that is the last frame, the peak; nobody has labelled the frames before.
    """
    said = {
        file.name.lower().removesuffix(LABEL_FILE): file
        for file in files
        if file.name.lower().endswith(LABEL_FILE)
    }
    for file in (file for file in files if file.suffix.lower() in IMAGES):
        listing = said.get(file.stem.lower())
        if listing is None:
            why = (
                f"it has no {file.stem}{LABEL_FILE}; only the last frame of a sequence may have one"
            )
            yield item(root, file, Label(None, why))
            continue
        try:
            label = label_of(listing.read_text("utf-8-sig", "replace"), label_scheme or "ck-plus")
        except OSError as error:
            label = Label(None, f"{listing.name} cannot be read ({error.strerror})", "")
        yield item(root, file, label)
