"""Renders as one stack: cached by what they are, not by what they are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

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


def test_the_names_of_columns_are_no_columns(tmp_path: Path):
    write_shard(tmp_path, 10)
    with np.load(tmp_path / "00000.npz") as shard:
        names = {"ancestry_names": np.array(["one", "two", "three", "four"])}
        arrays: dict[str, Any] = {**shard, **names, "recipe": np.array("Recipe()")}
        np.savez(tmp_path / "00000.npz", **arrays)
    assert set(renders.load(tmp_path, 64).annotations) == {"label", "identity"}


def test_people_are_held_out_and_parted_whole(tmp_path: Path):
    identity = np.arange(64).repeat(2)
    label = np.tile([-1, 3], 64)
    data = renders.Renders(
        np.zeros((128, 1, 1, 3), np.uint8), {"identity": identity, "label": label}, "key"
    )
    rows = data.labelled()
    assert identity[rows].tolist() == [0, 16, 32, 48] and (label[rows] == 3).all()
    assert data.halves(data.rows(held_out=True)).tolist() == [True, True, False, False] * 2


def test_other_renders_of_the_same_name_are_read_anew(tmp_path: Path):
    write_shard(tmp_path, 10)
    old = renders.load(tmp_path, 64)
    write_shard(tmp_path, 200)
    os.utime(tmp_path / "00000.npz", (0, 0))  # file systems may keep whole seconds only
    new = renders.load(tmp_path, 64)
    assert (old.images[0, 0, 0, 0], new.images[0, 0, 0, 0]) == (10, 200)
    assert old.key != new.key
