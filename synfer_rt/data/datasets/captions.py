"""Captions in text files: `a.txt` for `a.jpg`, as img2dataset and trainers of LoRAs have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from synfer_rt.data.datasets.items import IMAGES, Description, Item, Read, Skipped, name_below

SUFFIX = ".txt"
NO_WORDS = "it holds no words, so its image has no caption"
"""Why a text file is no caption: it is empty, or has numbers alone, such as boxes or points."""


def caption_of(read: Read) -> str | None:
    """The text that `read` returns, in one line; None if it has no letter, or cannot be read."""
    try:
        caption = " ".join(read().decode("utf-8-sig", "replace").split())
    except OSError:
        return None
    return caption if any(map(str.isalpha, caption)) else None


def caption_files(files: Sequence[Path]) -> dict[Path, Path]:
    """The text file that each image has beside it, of those that have one."""
    texts = {file.with_suffix(""): file for file in files if file.suffix.lower() == SUFFIX}
    if not texts:
        return {}
    images = (file for file in files if file.suffix.lower() in IMAGES)
    return {image: texts[key] for image in images if (key := image.with_suffix("")) in texts}


def with_captions(
    items: Sequence[Item], texts: Mapping[Path, Path], root: Path
) -> tuple[list[Item], list[Skipped]]:
    """The images of the dataset in `root` with their captions, and the texts that are none.

    A caption in a text file goes before one in a table.
    """
    captions = {text: caption_of(text.read_bytes) for text in texts.values()}
    found = [
        replace(item, description=Description(caption).filled_by(item.description))
        if (caption := captions.get(texts.get(item.file, item.file)))
        else item
        for item in items
    ]
    empty = (text for text, caption in captions.items() if caption is None)
    return found, [Skipped(name_below(root, text), NO_WORDS) for text in empty]
