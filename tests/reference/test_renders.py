"""Renders as one stack: cached by what they are, not by what they are called."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from reference import renders


def write_shard(directory: Path, brightness: int) -> None:
    """Four renders, all of them grey."""
    directory.mkdir(exist_ok=True)
    images = np.full((4, 128, 128, 3), brightness, np.uint8)
    np.savez(directory / "00000.npz", images=images, label=np.zeros(4), identity=np.arange(4))


def test_a_stack_is_read_from_its_cache(tmp_path: Path):
    write_shard(tmp_path, 10)
    renders.load(tmp_path, 64)
    (cache,) = tmp_path.glob("images-*.npy")
    np.save(cache, np.full((4, 64, 64, 3), 99, np.uint8))
    assert renders.load(tmp_path, 64).images.max() == 99


def test_other_renders_of_the_same_name_are_read_anew(tmp_path: Path):
    write_shard(tmp_path, 10)
    old = renders.load(tmp_path, 64)
    write_shard(tmp_path, 200)
    os.utime(tmp_path / "00000.npz", (0, 0))  # file systems may keep whole seconds only
    new = renders.load(tmp_path, 64)
    assert (old.images[0, 0, 0, 0], new.images[0, 0, 0, 0]) == (10, 200)
    assert old.key != new.key
