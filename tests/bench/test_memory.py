"""A run keeps nothing of an image that is written, and what it wrote is read again."""

from __future__ import annotations

import json
import mmap
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from synfer_rt.bench import memory
from synfer_rt.bench.host_side import InstantEngines
from synfer_rt.bench.memory import checked, of_photos, over_time, resident
from synfer_rt.bundle import Bundle
from synfer_rt.data.writers import FORMATS, open_output, read
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.sampling.inversion import PhotoStarts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's count of memory")
MEGABYTE = 1_000_000


def test_what_is_kept_shows() -> None:
    with mmap.mmap(-1, 30 * MEGABYTE) as kept:  # fresh pages, whatever this process has freed
        before = resident()
        for page in range(0, len(kept), mmap.PAGESIZE):
            kept[page] = 1
        assert 25 * MEGABYTE < resident() - before < 60 * MEGABYTE


def test_each_part_of_a_run_is_told_with_its_images_and_time(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    run, told = make_run(tiny_bundle, count=40), []
    writer = open_output(tmp_path / "out", run.settings("webdataset"), resume=False, shard_size=16)
    found = over_time(run, InstantEngines(tiny_bundle), writer, 4, 5, told.append)
    assert [stretch.images for stretch in found] == [8] * 5 and told == found
    assert all(stretch.seconds > 0 and stretch.resident > MEGABYTE for stretch in found)
    written = checked(tmp_path / "out")
    assert (written["shards"], written["read"], written["faults"]) == (3, 40, [])
    shard = tmp_path / "out/000001.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    found = checked(tmp_path / "out")
    assert found["read"] < 40 and found["faults"] and found["bytes"] < written["bytes"]


def test_the_command_writes_a_page_of_what_it_measured(tiny_bundle: Bundle, tmp_path: Path) -> None:
    page = tmp_path / "long.md"
    words = ["--bundle", tiny_bundle.path, "--count", 40, "--batch", 4, "--shard-size", 16]
    done = CliRunner().invoke(memory.main, [*map(str, words), "--page", str(page)])
    assert done.exit_code == 0, done.output
    result = json.loads(page.with_suffix(".json").read_text())
    assert memory.page(result) == page.read_text()
    assert "# 40 images in one run" in page.read_text()
    assert "read 40 images in 3 shards" in page.read_text()
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 10 == 2 + len(result["stretches"])
    assert "memory --count 40 --batch 4 --shard-size 16`" in page.read_text()


def test_faults_are_on_the_page_and_in_the_exit_code(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(out: Path) -> dict[str, object]:
        shard = out / "000000.tar"
        shard.write_bytes(shard.read_bytes()[:3000])
        return checked(out)

    monkeypatch.setattr(memory, "checked", damaged)
    words = ["--bundle", str(tiny_bundle.path), "--count", "20", "--page", str(tmp_path / "a.md")]
    done = CliRunner().invoke(memory.main, words)
    assert done.exit_code == 1
    assert "000000.tar" in done.output and "- " in (tmp_path / "a.md").read_text()


def test_starts_of_photos_that_have_passed_are_not_kept(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    latents = PhotoStarts.latents

    def counted(starts: PhotoStarts, *rows: Sequence[int]) -> np.ndarray:
        found = latents(starts, *rows)
        kept.append(starts.kept)
        return found

    monkeypatch.setattr(PhotoStarts, "latents", counted)
    monkeypatch.setattr("synfer_rt.sampling.inversion._AT_ONCE", 8)
    (tmp_path / "photos").mkdir()
    run = make_run(tiny_bundle, count=200, **of_photos(tmp_path / "photos", 200, tiny_bundle))
    assert len(run.photos or ()) == 200
    writer = open_output(tmp_path / "out", run.settings("webdataset"), resume=False, shard_size=50)
    over_time(run, InstantEngines(tiny_bundle), writer, 8, 2)
    made = [record["source"] for record, _ in read(tmp_path / "out")]
    assert len({*made}) == 200 and len(kept) >= 25
    assert max(kept) <= 8


def test_the_command_starts_from_photos(tiny_bundle: Bundle, tmp_path: Path) -> None:
    words = ["--bundle", str(tiny_bundle.path), "--count", "20", "--batch", "4", "--photos"]
    done = CliRunner().invoke(memory.main, words)
    assert done.exit_code == 0 and "20 images in 1 shards read" in done.output, done.output


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_memory_stays_level(tiny_bundle: Bundle, tmp_path: Path, format: str) -> None:
    engines = InstantEngines(tiny_bundle)

    def sizes(count: int, parts: int) -> list[int]:
        run = make_run(tiny_bundle, count=count)
        writer = open_output(tmp_path / str(count), run.settings(format), resume=False)
        return [each.resident for each in over_time(run, engines, writer, 128, parts)]

    sizes(1024, 1)  # warms up
    half, whole = sizes(8192, 2)
    pixels = 32 * 32 * 3 * 4096  # of the second half's images
    assert whole - half < pixels / 4
