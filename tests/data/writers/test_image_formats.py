"""Runs whose images are JPEG or WebP files: the promises of every format hold for them too."""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from synfer_rt.commands.cli import main
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.image_format import ImageFormat, image_format
from synfer_rt.data.writers import FORMATS, run_file
from synfer_rt.data.writers.image_check import has_both_ends, problem
from synfer_rt.data.writers.shards import Part
from synfer_rt.errors import UserError
from tests.data.writers.small_run import SmallRun, assert_complete, finished, open_run
from tests.data.writers.test_parts import files, write_part

LOSSY = ["jpeg", "webp"]
every = pytest.mark.parametrize("images", LOSSY)
pytestmark = every


class LossyRun(SmallRun):
    """The small run with JPEG or WebP files."""

    def __init__(self, images: ImageFormat) -> None:
        self.images = images

    def settings(self, format, count=10):
        """What the writers need to know."""
        return {**super().settings(format, count), **self.images.settings}

    def png(self, index):
        """The image's file."""
        (file,) = self.images.encode([self.image(index)])
        return file


@pytest.fixture
def run(images: str) -> LossyRun:
    return LossyRun(image_format(images))


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_is_read_back(run, tmp_path, format):
    samples = finished(run, tmp_path / "out", format)
    assert_complete(run, samples)
    ends = {Path(record["file_name"]).suffix for record, _ in samples}
    assert ends == {f".{run.images.suffix}"}
    found = read_dataset(tmp_path / "out")
    assert found.counts() == {"neutral": 4, "happy": 3, "sad": 3} and not found.skipped
    assert [item.read() for item in found.items] and len(found.items) == 10


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_that_stopped_goes_on_within_its_shard(run, tmp_path, format):
    whole, cut = tmp_path / "whole/out", tmp_path / "cut/out"
    finished(run, whole, format)
    with closing(open_run(run, cut, format)) as writer:
        run.write(writer, 6)
    with closing(open_run(run, cut, format, resume=True)) as writer:
        assert writer.done == 6
    finished(run, cut, format)
    assert files(whole.parent) == files(cut.parent)


@pytest.mark.parametrize("format", FORMATS)
def test_parts_have_the_bytes_of_one_process(run, tmp_path, format):
    finished(run, tmp_path / "one/out", format)
    for number in (1, 0):
        writer = open_run(run, tmp_path / "parts/out", format, part=Part(number, 2))
        write_part(run, writer)
        writer.finish()
    assert files(tmp_path / "one/out") == files(tmp_path / "parts/out")


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_goes_on_in_its_own_format_alone(run, images, tmp_path, format):
    open_run(run, tmp_path / "out", format).close()
    for name in {"png", *LOSSY} - {images}:
        with pytest.raises(UserError, match=rf'image format: "{images}", now "{name}"'):
            open_run(LossyRun(image_format(name)), tmp_path / "out", format, resume=True)
    with pytest.raises(UserError, match="image quality: 95, now 80"):
        open_run(LossyRun(image_format(images, 80)), tmp_path / "out", format, resume=True)


def test_a_lost_image_is_made_again(run, tmp_path):
    out = tmp_path / "out"
    before = finished(run, out, "imagefolder")
    cut = out / before[4][0]["file_name"]
    os.truncate(cut, cut.stat().st_size - 1)
    with closing(open_run(run, out, "imagefolder", resume=True)) as writer:
        assert list(writer.lacking) == [4]
    assert finished(run, out, "imagefolder") == before


def verify(out: Path) -> list[str]:
    return CliRunner().invoke(main, ["verify", str(out)]).stdout.splitlines()


@pytest.mark.parametrize("format", FORMATS)
def test_verify_finds_a_whole_run_whole(run, tmp_path, format):
    finished(run, tmp_path / "out", format)
    assert verify(tmp_path / "out") == [f"{tmp_path / 'out'}: all 10 images are there and whole."]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("lost", [1, 2, 40])
def test_verify_finds_images_that_are_cut_short(images, tmp_path, format, lost):
    class Cut(LossyRun):
        def png(self, index):
            whole = super().png(index)
            return whole[: -lost if index == 5 else None]

    out = tmp_path / "out"
    run = Cut(image_format(images))
    with closing(open_run(run, out, format)) as writer:
        run.write(writer, 10)
        writer.finish()
    (line,) = verify(out)
    assert re.search(r"5|row 1", line) and f"it is cut short or not a {NAMES[images]}" in line


NAMES = {"jpeg": "JPEG", "webp": "WebP"}


@pytest.mark.parametrize("lost", [1, 2, 3, 100])
def test_the_ends_of_a_file_tell_that_it_is_cut_short(run, tmp_path, lost):
    file = tmp_path / "image"
    file.write_bytes(run.png(0))
    assert has_both_ends(file, run.images) and problem(run.png(0), run.images) is None
    os.truncate(file, file.stat().st_size - lost)
    assert not has_both_ends(file, run.images)


def test_a_file_of_another_format_is_found(run, images):
    for other in {"png", *LOSSY} - {images}:
        (file,) = image_format(other).encode([run.image(0)])
        assert problem(file, run.images) == f"it is cut short or not a {NAMES[images]}"


def test_a_run_json_with_a_strange_format_is_damaged(run, tmp_path):
    finished(run, tmp_path / "out", "parquet")
    path = run_file.path(tmp_path / "out")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_format": "gif"}))
    result = CliRunner().invoke(main, ["verify", str(tmp_path / "out")])
    assert result.exit_code == 2 and "is damaged" in result.output
