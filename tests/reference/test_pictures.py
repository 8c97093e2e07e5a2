"""Pictures of the results take little room and look as they were drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference.pictures import save_chart, save_with_palette

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_up_to_256_colours_stay_as_they_are(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    drawn = Image.fromarray(np.stack([levels, levels[::-1], levels.T], -1))
    save_with_palette(drawn, tmp_path / "few.png")
    kept = Image.open(tmp_path / "few.png")
    assert kept.mode == "P"
    assert np.abs(np.asarray(kept.convert("RGB"), int) - np.asarray(drawn, int)).max() <= 2


def test_more_colours_become_near_ones(tmp_path: Path) -> None:
    y, x = np.mgrid[:64, :64].astype(np.uint8) * 4
    drawn = Image.fromarray(np.stack([x, y, x // 2], -1))
    save_with_palette(drawn, tmp_path / "many.png")
    kept = np.asarray(Image.open(tmp_path / "many.png").convert("RGB"), int)
    assert np.abs(kept - np.asarray(drawn, int)).mean() < 6


def test_a_chart_is_smaller_than_matplotlib_writes_it(tmp_path: Path) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.subplots().plot([1, 3, 2])
    figure.savefig(tmp_path / "plain.png", dpi=110)
    save_chart(figure, tmp_path / "small.png", dpi=110)
    plain, small = (Image.open(tmp_path / f"{name}.png") for name in ("plain", "small"))
    assert small.size == plain.size
    sizes = [(tmp_path / f"{name}.png").stat().st_size for name in ("plain", "small")]
    assert sizes[1] < 0.6 * sizes[0]


def test_every_committed_picture_is_small() -> None:
    sizes = {file.name: file.stat().st_size for file in RESULTS.glob("*.png")}
    assert len(sizes) > 10 and max(sizes.values()) < 800_000
