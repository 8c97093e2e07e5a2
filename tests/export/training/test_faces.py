"""From datasets to faces to train on and faces held out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt.bundle.face_template import ARCFACE, FaceTemplate
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.datasets.items import load
from synfer_rt.errors import UserError
from synfer_rt.export.training.faces import Faces, read_faces
from synfer_rt.export.training.stages import silent
from synfer_rt.faces import weights
from synfer_rt.faces.yunet import Yunet
from synfer_rt.jobs.aligning import aligner_to
from tests.export.training.photos import put_photos
from tests.faces.yunet_form import put_aligned, put_picture, write_red_finder

SCHEME = "neutral,happy,sad"


def faces_of(root: Path, held_out: str = "auto", scheme: str = SCHEME, **more: Any) -> Faces:
    dataset = read_dataset(root, **more)
    work, one = root.parent / "work", "split" in more
    return read_faces(dataset, scheme, (16, 16), work, silent, held_out, one)


def names(faces: Faces, rows: np.ndarray) -> set[str]:
    return {faces.names[int(row)] for row in rows}


def test_images_are_cropped_and_resized_as_label_does(tmp_path: Path) -> None:
    dataset = read_dataset(put_photos(tmp_path / "photos"))
    faces = faces_of(tmp_path / "photos")
    wanted = load(dataset.items[3], (16, 16))
    assert isinstance(wanted, np.ndarray)
    found = faces.images(np.array([3]))[0]
    np.testing.assert_array_equal(found / np.float32(255), wanted.transpose(1, 2, 0))
    assert faces.classes[:6].tolist() == [0, 1, 2, 0, 1, 2]


def test_images_are_held_out_by_their_pixels_whatever_they_are_called(tmp_path: Path) -> None:
    root = put_photos(tmp_path / "photos")
    before = faces_of(root)
    assert before.by == "images" and len(before.held) == 6  # two of twelve of each class
    pixels = {before.images(np.array([row])).tobytes() for row in before.held}
    for image in sorted(root.glob("*.png")):
        image.rename(root / f"{99 - int(image.stem):03d}.png")
    table = (root / "labels.csv").read_text().splitlines()
    lines = [f"{99 - int(line[:3]):03d}{line[3:]}" for line in table[1:]]
    (root / "labels.csv").write_text("\n".join([table[0], *sorted(lines)]) + "\n")
    after = faces_of(root)
    assert {after.images(np.array([row])).tobytes() for row in after.held} == pixels


def test_persons_are_held_out_whole_where_the_table_names_them(tmp_path: Path) -> None:
    root = put_photos(tmp_path / "photos", each=20, persons=5)
    faces = faces_of(root)
    person = dict(line.split(",")[::2] for line in (root / "labels.csv").read_text().split()[1:])
    trained, held = ({person[n] for n in names(faces, rows)} for rows in (faces.train, faces.held))
    assert faces.by == "persons" and held and not trained & held
    assert faces_of(root, "images").by == "images"


def test_the_dataset_s_own_split_is_held_out_and_test_is_left_alone(tmp_path: Path) -> None:
    root = put_photos(
        tmp_path / "photos", each=20, splits=("train", "train", "train", "val", "test")
    )
    lines = [line.split(",") for line in (root / "labels.csv").read_text().split()[1:]]
    of = {
        split: {line[0] for line in lines if line[2] == split} for split in ("train", "val", "test")
    }
    faces = faces_of(root)
    assert faces.by == "val"
    assert names(faces, faces.train) == of["train"] and names(faces, faces.held) == of["val"]
    on_test = faces_of(root, "test")
    assert names(on_test, on_test.held) == of["test"]
    assert names(on_test, on_test.train) == of["train"]
    by_images = faces_of(root, "images")
    assert names(by_images, np.arange(len(by_images.names))) == of["train"]
    one_split = faces_of(root, split="train")
    assert one_split.by == "images" and set(one_split.names) == of["train"]


def test_nothing_is_trained_on_that_has_the_pixels_of_a_held_out_image(tmp_path: Path) -> None:
    root = put_photos(tmp_path / "photos", each=20, splits=("train", "val"))
    shutil.copyfile(root / "003.png", root / "000.png")  # 000 is train, 003 is val
    faces = faces_of(root)
    assert "000.png" not in names(faces, faces.train)
    assert any("have the pixels of a held-out one" in said for said in faces.remarks)


def test_what_cannot_be_used_is_left_out_and_said(tmp_path: Path) -> None:
    root = put_photos(tmp_path / "photos", classes=("neutral", "happy", "sad", "contempt"))
    (root / "005.png").write_bytes(b"no image")
    faces = faces_of(root)
    assert "005.png" not in faces.names
    said = " ".join(faces.remarks)
    assert "contempt (12)" in said and "005.png" in said


@pytest.fixture
def squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six pictures of two classes, of which happy/5.png has no face; few are enough here."""
    monkeypatch.setattr("synfer_rt.export.training.faces.FEWEST", 1)
    for i in range(6):
        corners = [(32 * (i + 2), 32 * (i % 4 + 3))] if i != 5 else []
        put_picture(tmp_path / "photos" / ("happy" if i % 2 else "sad") / f"{i}.png", corners, i)
    return tmp_path / "photos"


def test_faces_are_aligned_and_images_without_one_left_out(squares: Path) -> None:
    detector = write_red_finder(squares.parent / "red.onnx")
    aligner = aligner_to(ARCFACE, True, None, detector)
    assert aligner is not None
    how = "happy,sad", (16, 16), squares.parent / "work", silent, "auto", False
    cropped = read_faces(read_dataset(squares), *how)
    aligned = read_faces(read_dataset(squares), *how, aligner)
    assert len(cropped.names) == 6 and aligned.key != cropped.key
    assert set(cropped.names) - set(aligned.names) == {"happy/5.png"}
    (said,) = aligned.remarks
    assert said.startswith("1 image cannot be used: happy/5.png: It shows no face;")
    put_aligned(squares, squares.parent / "faces", (16, 16), aligner)
    before = read_faces(read_dataset(squares.parent / "faces"), *how)
    assert before.names == aligned.names
    for picture in squares.rglob("*.png"):  # what is aligned is kept
        picture.write_bytes(b"")
    rows = np.arange(len(before.names))
    np.testing.assert_array_equal(before.images(rows), aligned.images(rows))
    np.testing.assert_array_equal(before.held, aligned.held)


def test_a_checkpoint_s_own_template_counts(
    squares: Path, mini: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its network is trained on faces that lie there, and others are warned of."""
    pytest.importorskip("torch", reason="training needs synfer-rt[export]")
    from synfer_rt.export.training.material import Material

    points = [[x / 2, y / 2] for x, y in ARCFACE.points]
    settings = json.loads((mini / "synfer.json").read_text()) | {"face_template": points}
    (mini / "synfer.json").write_text(json.dumps(settings))
    detector = write_red_finder(squares.parent / "red.onnx")
    monkeypatch.setattr(weights, "installed", lambda: Yunet(detector))
    material = Material(mini, (squares,), classes="happy,sad", align=True, face_detector=detector)
    work = squares.parent / "work"
    checkpoint, aligned = material.read(work, silent)
    assert not caplog.text
    template = FaceTemplate(tuple((x, y) for x, y in points), checkpoint.image_size)
    item = read_dataset(squares / "sad" / "0.png").items[0]
    wanted = load(item, checkpoint.image_size, aligner_to(template, True, None, detector))
    assert isinstance(wanted, np.ndarray)
    found = aligned.images(np.array([aligned.names.index("sad/0.png")]))[0]
    np.testing.assert_array_equal(found / np.float32(255), wanted.transpose(1, 2, 0))
    replace(material, align=False, face_detector=None).read(work, silent)
    assert f"do not lie where {checkpoint.settings.name} expects them" in caplog.text


def refused(root: Path, **more: str) -> str:
    with pytest.raises(UserError) as caught:
        faces_of(root, **more)
    assert str(caught.value).count(". ") <= 1
    return str(caught.value)


def test_bad_datasets_are_refused_in_a_sentence(tmp_path: Path) -> None:
    few = put_photos(tmp_path / "few", each=6)
    assert "neutral 5 and 1, happy 5 and 1, sad 5 and 1; give 8 and 1 or more" in refused(few)
    two = put_photos(tmp_path / "two", classes=("neutral", "happy"))
    assert "sad 0 and 0" in refused(two) and "`classes='neutral,happy'`" in refused(two)
    one = put_photos(tmp_path / "one", classes=("happy",))
    assert "one class alone, happy" in refused(one)
    numbers = put_photos(tmp_path / "numbers", classes=("0", "1", "2"))
    assert "No label of" in refused(numbers) and "`label_scheme`" in refused(numbers)
    assert "does not name two or more persons" in refused(two, held_out="persons")
    assert "no labelled images of the split val" in refused(two, held_out="val")
    only = put_photos(tmp_path / "only", splits=("val",))
    assert "choose the one to train on with `split`" in refused(only)
