"""CK+ (Lucey et al. 2010): sequences of frames, with a text file for the label of a sequence."""

from __future__ import annotations

from pathlib import Path

from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.formats.format import Format
from synfer_rt.data.datasets.items import Found
from synfer_rt.data.datasets.labels.label import Label, label_of

_LABEL_FILE = "_emotion.txt"
"""The end of the name of a file with a label, after the name of the sequence's last frame."""


def read(contents: Contents) -> Found:
    """The label of `S005_001_00000011.png` is in `S005_001_00000011_emotion.txt`.

    It belongs to the last frame of a sequence, the peak; earlier frames have no label.
    """
    label_files = {
        file.name.lower().removesuffix(_LABEL_FILE): file
        for file in contents.files
        if file.name.lower().endswith(_LABEL_FILE)
    }
    for file in contents.images:
        label_file = label_files.get(file.stem.lower())
        if label_file is None:
            why = (
                f"there is no {file.stem}{_LABEL_FILE} for it; "
                "only the last frame of a sequence has a label"
            )
            yield contents.item(file, Label(None, why), person=_person(file))
            continue
        try:
            text = label_file.read_text("utf-8-sig", "replace")
            label = label_of(text, contents.label_scheme)
        except OSError as error:
            label = Label(None, f"{label_file.name} cannot be read ({error.strerror})", "")
        yield contents.item(file, label, person=_person(file))


def _person(file: Path) -> str | None:
    """Who a frame shows: the first part of a name such as S005_001_00000011.png."""
    person, _, rest = file.stem.partition("_")
    return person if rest else None


def has_label_files(contents: Contents) -> bool:
    """Whether there are files of labels."""
    return any(name.endswith(_LABEL_FILE) for name in contents.file_names)


FORMAT = Format("ck-plus", read, possible=has_label_files, label_scheme="ck-plus")
