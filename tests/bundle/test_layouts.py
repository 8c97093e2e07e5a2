"""The layout bank is read without pickles, and only in its shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.errors import UserError
from tests import tiny_bundle as tiny
from tests.damaged_bundles import change, rehash


def test_the_layout_bank_is_latents_and_words(tiny_bundle: Bundle) -> None:
    layouts = tiny_bundle.layouts
    assert layouts.latents.shape == (6, *tiny.LATENT)
    assert layouts.latents.dtype == np.float32
    assert (layouts.gender[1], layouts.ancestry[2]) == ("male", "European")
    assert len(layouts) == tiny_bundle.layout_count == 6


def test_a_layout_bank_that_pickles_is_not_loaded(copy: Path) -> None:
    words = np.array(["young"] * 6, dtype=object)
    latents = np.zeros((6, *tiny.LATENT), np.float16)
    np.savez(copy / "layouts.npz", latents=latents, age=words, gender=words, ancestry=words)
    rehash(copy, "layouts.npz")
    with pytest.raises(UserError, match=r"layouts.npz is not a layout bank .*build-engines"):
        _ = open_bundle(copy).layouts


def test_a_layout_bank_that_is_damaged_within_is_refused(copy: Path) -> None:
    file, words = copy / "layouts.npz", np.array(["young"] * 6)
    latents = np.zeros((6, *tiny.LATENT), np.float16)
    np.savez_compressed(file, latents=latents, age=words, gender=words, ancestry=words)
    content = bytearray(file.read_bytes())
    begin = content.index(b"latents.npy") + len(b"latents.npy") + 20  # behind zip's own fields
    content[begin : begin + 8] = b"\xff" * 8
    file.write_bytes(content)
    rehash(copy, "layouts.npz")
    with pytest.raises(UserError, match=r"layouts.npz is not a layout bank .*build-engines"):
        _ = open_bundle(copy).layouts


def test_a_layout_bank_of_another_shape_is_refused(copy: Path) -> None:
    words = np.array(["young"] * 6)
    latents = np.zeros((6, 4, 9, 9), np.float16)
    np.savez(copy / "layouts.npz", latents=latents, age=words, gender=words, ancestry=words)
    rehash(copy, "layouts.npz")
    with pytest.raises(UserError, match=r"holds \(6, 4, 9, 9\) instead of \(6, 4, 8, 8\)"):
        _ = open_bundle(copy).layouts


def test_a_bundle_without_layouts_says_how_to_start(copy: Path) -> None:
    def edit(fields: dict[str, Any]) -> None:
        fields["layouts"] = None
        fields["defaults"]["layout"] = "none"

    change(copy, edit)
    with pytest.raises(UserError, match='start from noise with `layout="none"`'):
        _ = open_bundle(copy).layouts


def test_faces_are_found_by_their_words(tiny_bundle: Bundle) -> None:
    layouts = tiny_bundle.layouts
    words = list(zip(layouts.age, layouts.gender, layouts.ancestry, strict=True))
    for described in {*words}:
        rows = [i for i, each in enumerate(words) if each == described]
        assert list(layouts.alike(*map(str, described))) == rows
    assert list(layouts.alike("ancient", "male", "European")) == list(range(6))
