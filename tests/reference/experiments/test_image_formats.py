"""What is measured of image formats."""

from __future__ import annotations

import numpy as np
import pytest

from reference.experiments.image_formats import FORMATS, page, psnr, weighed


def test_psnr_is_that_of_its_definition():
    """10 log10(255^2 / mean squared error)."""
    black, one = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)
    assert psnr(black, one) == pytest.approx(20 * np.log10(255))
    assert psnr(black, 255 * one) == 0 and psnr(one, one) == np.inf


def test_a_page_has_a_row_for_each_format():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    sizes = [weighed(images, format) for format in FORMATS]
    assert sizes[0]["psnr"] is None and all(row["psnr"] > 5 for row in sizes[1:])
    labels = [{**row, "other labels": 1, "mean": 0.01, "largest": 0.2} for row in sizes[1:]]
    about = dict.fromkeys(("command", "date", "machine", "jpeg", "webp", "bundle"), "x")
    text = page({**about, "faces": 2, "samples": 9}, sizes, labels)
    rows = [line for line in text.splitlines() if line.startswith(("| png", "| jpeg", "| webp"))]
    assert len(rows) == len(FORMATS) + len(FORMATS) - 1
    assert "| 1 of 9 | 0.0100 | 0.200 |" in text
