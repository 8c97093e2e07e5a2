"""Jobs on aligned faces, with a detector that finds red squares."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import synfer_rt
from synfer_rt.bundle import Bundle
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.datasets.items import load
from synfer_rt.data.writers import read, run_file
from synfer_rt.errors import UserError
from synfer_rt.faces import weights
from synfer_rt.faces.yunet import Yunet
from synfer_rt.jobs import aligning, known_faces
from synfer_rt.jobs.card.command import command
from synfer_rt.jobs.known_faces import FILE
from synfer_rt.jobs.photo_reading import read_photos
from tests.faces.yunet_form import POINTS, put_aligned, put_picture, write_red_finder
from tests.jobs.long_tail import decoded

SQUARES = {
    "happy/one.png": [(96, 160)],
    "happy/two.png": [(64, 64), (320, 224)],
    "sad/none.png": [],
    "sad/low.png": [(32, 448)],
}


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_red_finder(tmp_path_factory.mktemp("faces") / "red.onnx")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 512 pixels with red squares, each with a corner of its own."""
    root = tmp_path_factory.mktemp("photos")
    for number, (name, corners) in enumerate(SQUARES.items()):
        put_picture(root / name, corners, number)
    return root


@pytest.fixture(scope="module")
def model(voting_bundle: Bundle) -> synfer_rt.Model:
    return synfer_rt.load(voting_bundle.path, backend="onnxruntime-cpu", threads=1)


def aligner(model: synfer_rt.Model, detector: Path, face: str = "largest"):
    made = aligning.aligner_for(model.bundle, True, face, detector)
    assert made is not None
    return made


def test_label_sees_aligned_faces_and_reports_images_without(
    model: synfer_rt.Model, photos: Path, detector: Path, tmp_path: Path
):
    align = {"align": True, "face_detector": detector}
    labels = list(model.label(photos, **align))
    assert [label.file_name for label in labels] == sorted(SQUARES)
    errors = {label.file_name: label.error for label in labels if label.error}
    assert errors.keys() == {"sad/none.png"}
    assert errors["sad/none.png"].startswith("It shows no face;")
    # The same faces, cropped before.
    put_aligned(photos, tmp_path, model.bundle.image_size, aligner(model, detector))
    cropped = {label.file_name: label for label in model.label(tmp_path)}
    for label in labels:
        if not label.error:
            assert label.probabilities == cropped[label.file_name].probabilities


def test_images_of_several_faces_are_left_out_on_demand(
    model: synfer_rt.Model, photos: Path, detector: Path
):
    only = model.label(photos, align=True, face="only", face_detector=detector)
    assert {name: why.partition(",")[0] for name, why in only.skipped} == {
        "happy/two.png": "It shows 2 faces",
        "sad/none.png": "It shows no face; leave it out",
    }


def test_a_box_of_a_table_says_which_face(
    model: synfer_rt.Model, photos: Path, detector: Path, tmp_path: Path
):
    """AffectNet's columns. The face is searched in the whole picture, not in the crop alone."""
    folder = tmp_path / "Manually_Annotated_Images"
    folder.mkdir()
    pixels = np.full((512, 512, 3), (0, 90, 160), np.uint8)
    pixels[:, 256:, 1] = 20
    for left, top in ((64, 64), (320, 224)):
        pixels[top : top + 32, left : left + 32] = (255, 0, 0)
    Image.fromarray(pixels).save(folder / "a.png")
    boxes = ((50, 50), (300, 210), (150, 300))
    lines = [f"a.png,{x},{y},60,60,1" for x, y in boxes]
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,expression"
    (tmp_path / "validation.csv").write_text("\n".join([header, *lines]) + "\n")
    made, size = aligner(model, detector), (48, 48)
    first, second, none = (load(item, size, made) for item in read_dataset(tmp_path).items)
    assert isinstance(first, np.ndarray) and isinstance(second, np.ndarray)
    assert min(first[0].mean(), second[0].mean()) > 0.5
    assert isinstance(none, str) and none.startswith("It shows no face in its box")


def test_a_table_remembers_how_faces_were_aligned(
    model: synfer_rt.Model, photos: Path, detector: Path, tmp_path: Path
):
    out = tmp_path / "labels.jsonl"
    align: dict[str, Any] = {"align": True, "face_detector": detector}
    model.label(photos, out=out, **align)
    settings = json.loads(out.with_name("labels.jsonl.run.json").read_text())
    assert settings["align"] == aligner(model, detector).settings()
    assert model.label(photos, out=out, resume=True, **align).new == 0
    for other in ({}, {**align, "face": "centre"}):
        with pytest.raises(UserError, match="begun with another align"):
            model.label(photos, out=out, resume=True, **other)


def test_augment_writes_aligned_originals_of_the_bundles_size(
    model: synfer_rt.Model, photos: Path, detector: Path, tmp_path: Path
):
    out = tmp_path / "out"
    options: dict[str, Any] = {"align": True, "face_detector": detector, "repair_steps": 0}
    made = model.augment(photos, out, balance=2, **options)
    assert {name: why.partition(";")[0] for name, why in made.skipped} == {
        "sad/none.png": "It shows no face"
    }
    size, align = model.bundle.image_size, aligner(model, detector)
    items = {item.name: item for item in read_dataset(photos).items}
    originals = [(r, png) for r, png in read(out) if r["origin"] == "original"]
    assert len(originals) == 3
    for record, png in originals:
        wanted = load(items[record["source"]], size, align)
        assert isinstance(wanted, np.ndarray)
        np.testing.assert_array_equal(decoded(png), np.rint(wanted.transpose(1, 2, 0) * 255))
    settings = json.loads(run_file.path(out).read_text())
    line = command(settings)
    assert line is not None and "--align --face largest --face-detector DETECTOR" in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"face": "largest"}, "`face` needs `align`"),
        ({"face_detector": "x.onnx"}, "`face_detector` needs `align`"),
        ({"align": 1}, "`align` must be True or False"),
        ({"align": True, "face": "first", "face_detector": "x"}, "one of largest, centre, only"),
        ({"align": True, "face_detector": "gs://bucket/x.onnx"}, "gs://"),
    ],
)
def test_what_does_not_fit_is_refused(
    options: dict[str, Any], says: str, model: synfer_rt.Model, photos: Path
):
    with pytest.raises(UserError, match=says):
        model.label(photos, **options)


def test_without_a_detector_the_remedy_is_named(
    model: synfer_rt.Model, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(weights, "installed", lambda: None)
    with pytest.raises(UserError, match=r"align.*face_detector"):
        model.label(photos, align=True)


def test_faces_that_lie_elsewhere_are_warned_of(
    model: synfer_rt.Model,
    photos: Path,
    detector: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """If the detector is installed, and the bundle says where it expects a face."""
    items = read_dataset(photos / "happy" / "one.png").items
    ((left, top),) = SQUARES["happy/one.png"]
    there = np.reshape(POINTS, (5, 2)) * 32 + (left, top)
    templates = {"there": (there / 512).tolist(), "elsewhere": (there / 512 + 0.2).tolist()}
    bundles = {
        name: dataclasses.replace(
            model.bundle, manifest={**model.bundle.manifest, "face_template": template}
        )
        for name, template in templates.items()
    }

    def warned(bundle: Bundle) -> str:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            aligning.warn_of_unaligned(items, bundle)
        return caplog.text

    assert not warned(bundles["elsewhere"])
    monkeypatch.setattr(weights, "installed", lambda: Yunet(detector))
    assert "1 of 1 faces" in warned(bundles["elsewhere"])
    assert not warned(bundles["there"])
    assert not warned(model.bundle)


def test_every_command_on_photos_looks_whether_they_are_aligned(
    model: synfer_rt.Model, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Those that train: tests/export/training/test_faces.py; evaluate: test_evaluate.py."""

    class LookedError(Exception):
        pass

    def look(items: object, bundle: Bundle) -> None:
        raise LookedError

    for module in ("label", "calibrate", "augment_dataset", "sample"):
        monkeypatch.setattr(f"synfer_rt.jobs.{module}.warn_of_unaligned", look)
    out = tmp_path / "out"
    for call in (
        lambda: model.label(photos),
        lambda: model.calibrate(photos, tmp_path / "c.json"),
        lambda: model.augment(photos, out, balance=3),
        lambda: model.write(out, layout_from=photos, count=1),
        lambda: model.sample(layout_from=photos, count=1),
    ):
        with pytest.raises(LookedError):
            call()
        shutil.rmtree(out, ignore_errors=True)


def test_samples_start_from_aligned_faces(
    model: synfer_rt.Model, photos: Path, detector: Path, tmp_path: Path
):
    options: dict[str, Any] = {"layout_from": photos, "count": 4, "steps": 2, "labels": ["sad"]}
    align: dict[str, Any] = {"align": True, "face": "only", "face_detector": detector}
    written = model.write(tmp_path / "out", **options, **align)
    reasons = {name: why.partition(";")[0].partition(",")[0] for name, why in written.skipped}
    assert reasons == {"happy/two.png": "It shows 2 faces", "sad/none.png": "It shows no face"}
    settings = json.loads(run_file.path(tmp_path / "out").read_text())
    assert settings["align"] == aligner(model, detector, "only").settings()
    # The same start faces, cropped before.
    made = aligner(model, detector, "only")
    put_aligned(photos, tmp_path / "faces", model.bundle.image_size, made)
    cropped = model.sample(**options | {"layout_from": tmp_path / "faces", "count": 2})
    samples = model.sample(**options | {"count": 2}, **align)
    for one, other in zip(samples, cropped, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the side of every square that the detector is shown."""
    shown: list[int] = []
    faces = Yunet.faces

    def counted(self: Yunet, image: Any, matrix: np.ndarray, side: int) -> Any:
        shown.append(side)
        return faces(self, image, matrix, side)

    monkeypatch.setattr(Yunet, "faces", counted)
    return shown


@pytest.mark.parametrize("dataset", [{}, {"keep_label": True}], ids=["folder", "dataset"])
def test_photos_have_their_faces_found_once(
    model: synfer_rt.Model, photos: Path, detector: Path, looks: list[int], dataset: dict[str, Any]
):
    align: dict[str, Any] = {"align": True, "face_detector": detector}
    given = {"layout_from": photos, **dataset, **align}
    found, _ = read_photos(given, model.bundle, None)
    assert found is not None and len(found) == 3
    before, rows = len(looks), range(len(found))
    # Two looks at each picture, and one more at each face.
    assert before == 2 * len(SQUARES) + len(found)
    images = found.images(rows)
    travelled = pickle.loads(pickle.dumps(found)).images(rows)
    assert len(looks) == before
    size, plain = model.bundle.image_size, aligner(model, detector)
    for item, image, other in zip(found.as_items(), images, travelled, strict=True):
        wanted = load(item, size, plain)
        np.testing.assert_array_equal(image, wanted)
        np.testing.assert_array_equal(other, wanted)


def test_a_run_that_continues_knows_the_faces_that_were_found(
    model: synfer_rt.Model, photos: Path, detector: Path, looks: list[int], tmp_path: Path
):
    out = tmp_path / "out"
    given: dict[str, Any] = {"layout_from": photos, "align": True, "face_detector": detector}

    def looks_of(**others: Any) -> tuple[int, Any]:
        before = len(looks)
        found, _ = read_photos({**given, **others}, model.bundle, out)
        assert found is not None
        return len(looks) - before, found

    fresh, found = looks_of()
    model.write(out, count=2, steps=2, labels=["sad"], **given)
    file = run_file.folder(out) / FILE
    whole = file.read_bytes()
    assert len(whole) == 32 + 3 * (16 + 80)
    # Only the picture without a face is looked at, in its two sizes.
    less, known = looks_of()
    assert (less, fresh) == (2, 2 * len(SQUARES) + 3)
    np.testing.assert_array_equal(known.images(range(3)), found.images(range(3)))
    for damaged in (whole[:-1], whole[:-96], whole[:50] + b"?" + whole[51:], b"faces", b""):
        file.write_bytes(damaged)
        assert looks_of()[0] == fresh
    model.write(out, count=2, steps=2, labels=["sad"], resume=True, **given)
    assert file.read_bytes() == whole
    run_file.path(out).unlink()
    assert looks_of(face="centre")[0] == fresh


@pytest.mark.parametrize("job", ["sample", "augment"])
@pytest.mark.parametrize(
    "before", [{}, {"align": True, "face": "centre"}], ids=["as it is", "centre"]
)
def test_a_run_of_other_faces_is_refused_before_they_are_sought(
    model: synfer_rt.Model,
    photos: Path,
    detector: Path,
    looks: list[int],
    tmp_path: Path,
    job: str,
    before: dict[str, Any],
):
    def run(align: dict[str, Any], **more: Any) -> None:
        if align:
            align = {"face_detector": detector, **align}
        if job == "augment":
            model.augment(photos, tmp_path, balance=4, repair_steps=0, **align, **more)
        else:
            model.write(tmp_path, layout_from=photos, count=2, steps=2, **align, **more)

    run(before)
    looks.clear()
    with pytest.raises(UserError, match="begun with another align"):
        run({"align": True}, resume=True)
    assert not looks


@pytest.mark.parametrize("job", ["sample", "sample from a dataset", "augment"])
def test_an_interruption_keeps_the_faces_that_were_found(
    model: synfer_rt.Model,
    photos: Path,
    detector: Path,
    looks: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    job: str,
):
    out, align = tmp_path / "out", {"align": True, "face_detector": detector}
    file, counted = run_file.folder(out) / FILE, Yunet.faces

    def run() -> int:
        before = len(looks)
        if job == "augment":
            model.augment(photos, out, balance=4, repair_steps=0, **align)
        else:
            given = {"keep_label": True} if "dataset" in job else {"labels": ["sad"]}
            model.write(out, layout_from=photos, count=2, steps=2, **given, **align)
        return len(looks) - before

    def interrupted(self: Yunet, image: Any, matrix: np.ndarray, side: int) -> Any:
        if np.asarray(image)[..., 0].any():
            return counted(self, image, matrix, side)
        end = time.monotonic() + 60
        while not file.exists() and time.monotonic() < end:  # the faces found meanwhile
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(known_faces, "_EVERY", 0.01)
    monkeypatch.setattr(Yunet, "faces", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert file.exists() and not out.exists()
    monkeypatch.setattr(Yunet, "faces", counted)
    fresh = 2 * len(SQUARES) + 3
    assert 2 <= run() < fresh
    assert len(file.read_bytes()) == 32 + 3 * (16 + 80)


def test_a_short_look_for_faces_leaves_no_file(
    model: synfer_rt.Model, photos: Path, detector: Path, tmp_path: Path
):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="solver"):
        model.write(out, layout_from=photos, align=True, face_detector=detector, solver="dimm")
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_taken_is_refused_before_faces_are_sought(
    model: synfer_rt.Model, photos: Path, detector: Path, looks: list[int], tmp_path: Path
):
    align: dict[str, Any] = {"align": True, "face_detector": detector}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    for call in (
        lambda: model.write(tmp_path / "out", layout_from=photos, **align),
        lambda: model.augment(photos, tmp_path / "out", balance=4, **align),
    ):
        with pytest.raises(UserError, match="holds no run of synfer-rt"):
            call()
    assert not looks


def test_originals_have_their_faces_found_once(
    model: synfer_rt.Model, photos: Path, detector: Path, looks: list[int], tmp_path: Path
):
    align: dict[str, Any] = {"align": True, "face_detector": detector}
    options: dict[str, Any] = {"balance": 4, "repair_steps": 0, **align}
    model.augment(photos, tmp_path / "out", **options)
    assert len(looks) == 2 * len(SQUARES) + 3
    model.augment(photos, tmp_path / "out", resume=True, **options)
    assert len(looks) == 2 * len(SQUARES) + 3 + 2  # the picture without a face


def test_a_detector_travels_to_other_processes(detector: Path):
    found = pickle.loads(pickle.dumps(Yunet(detector)))
    assert found.sha256 == Yunet(detector).sha256
