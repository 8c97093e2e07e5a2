"""The contact sheet."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from synfer_rt.data.contact_sheet import PER_CLASS, contact_sheet, write_contact_sheet
from synfer_rt.data.writers import FORMATS, open_output
from synfer_rt.errors import UserError
from tests.data.writers.small_run import SmallRun

COLOURS = {"happy": (255, 0, 0), "sad": (0, 0, 255)}


def samples(size, count):
    for index in range(count):
        label = ("happy", "sad")[index % 2]
        file = io.BytesIO()
        Image.new("RGB", size, COLOURS[label]).save(file, "PNG")
        yield {"requested_label": label, "index": index}, file.getvalue()


def has(sheet, colour):
    pixels = np.asarray(sheet)
    return (pixels == np.array(colour)).all(-1)


def test_a_class_has_a_row_with_its_name_on_the_left():
    sheet = contact_sheet(samples((64, 64), 20), ("happy", "sad"))
    rows = [np.flatnonzero(has(sheet, COLOURS[label]).any(1)) for label in ("happy", "sad")]
    assert rows[0].max() < rows[1].min()
    first_tile = np.flatnonzero(has(sheet, COLOURS["happy"]).any(0)).min()
    for found in rows:
        name = np.asarray(sheet)[found.min() : found.max(), :first_tile]
        assert (name < 128).any()


@pytest.mark.parametrize(("size", "tile"), [(32, 96), (64, 128), (128, 128), (512, 171)])
def test_images_are_scaled_by_a_whole_number_to_a_readable_size(size, tile):
    sheet = contact_sheet(samples((size, size), 2), ("happy", "sad"))
    found = has(sheet, COLOURS["happy"])
    assert found.any(1).sum() == tile and found.any(0).sum() == tile


def test_a_row_has_the_first_samples_and_no_more():
    sheet = contact_sheet(samples((96, 96), 100), ("happy", "sad"))
    assert has(sheet, COLOURS["sad"]).any(0).sum() == PER_CLASS * 96


def test_a_run_that_lost_an_image_is_named(tmp_path):
    settings = {"format": "imagefolder", "count": 1, "classes": ["happy"], "au_vocabulary": None}
    writer = open_output(tmp_path, settings, resume=False)
    writer.write([{"index": 0, "label": "happy", "requested_label": "happy"}], [b"png"])
    writer.finish()
    (tmp_path / "happy/00000000.png").unlink()
    with pytest.raises(UserError, match=r"00000000\.png of the finished run cannot be read"):
        write_contact_sheet(tmp_path, ["happy"])


@pytest.mark.parametrize("format", FORMATS)
def test_a_rare_class_of_a_plan_has_its_row(tmp_path, format):
    """Of 64 images the 18th and the 50th are sad, so they come after the first of each class."""
    run, out = SmallRun(), tmp_path / "out"
    settings = {**run.settings(format, 64), "class_counts": {"happy": 62, "sad": 2}}
    writer = open_output(out, settings, resume=False)
    for index in range(64):
        label = "sad" if index in (17, 49) else "happy"
        file = io.BytesIO()
        Image.new("RGB", (96, 96), COLOURS[label]).save(file, "PNG")
        record = {**run.record(index), "label": label, "requested_label": label}
        writer.write([record], [file.getvalue()])
    writer.finish()
    page = write_contact_sheet(out, ["happy", "sad"]).read_text()
    png = base64.b64decode(page.partition("base64,")[2].partition('"')[0])
    sheet = Image.open(io.BytesIO(png))
    assert has(sheet, COLOURS["sad"]).any(0).sum() == 2 * 96
    assert has(sheet, COLOURS["happy"]).any(0).sum() == PER_CLASS * 96


def test_a_class_without_samples_has_an_empty_row():
    sheet = contact_sheet(samples((96, 96), 1), ("happy", "sad"))
    assert has(sheet, COLOURS["happy"]).any() and not has(sheet, COLOURS["sad"]).any()
