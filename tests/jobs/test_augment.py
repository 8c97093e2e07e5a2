"""Augmentation of a rare class, on the tiny bundle and real files."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from synfer_rt.bundle import open_bundle
from synfer_rt.data.datasets import Dataset, read_dataset
from synfer_rt.data.images import read_image
from synfer_rt.data.writers import FORMATS, open_output, read
from synfer_rt.errors import UserError
from synfer_rt.jobs.augment import Augmenter, execute, original_pixels
from synfer_rt.jobs.originals import usable
from synfer_rt.jobs.verify import faults, settings_of
from synfer_rt.sampling.sampler import Sampler
from tests.hugging_face import rows
from tests.jobs.long_tail import COUNTS, decoded, job, written


def test_the_output_has_the_distribution_that_was_asked_for(
    dataset: Dataset, sampler: Sampler, tmp_path: Path
):
    samples = written(job(dataset), sampler, tmp_path / "out")
    assert Counter(record["label"] for record, _ in samples) == dict.fromkeys(COUNTS, 5)
    assert [record["index"] for record, _ in samples] == list(range(15))
    names = {item.name: item.label for item in dataset.items}
    for record, _ in samples:
        assert names[record["source"]] == record["label"]


def test_originals_keep_their_pixels_and_size(
    dataset: Dataset, sampler: Sampler, long_tail: Path, tmp_path: Path
):
    samples = written(job(dataset), sampler, tmp_path / "out")
    originals = [(r, png) for r, png in samples if r["origin"] == "original"]
    assert len(originals) == 8
    for record, png in originals:
        before = np.asarray(Image.open(long_tail / record["source"]), np.int16)
        np.testing.assert_array_equal(decoded(png), before)


@pytest.mark.parametrize("batch", [3, 16])
def test_decoded_originals_are_what_the_vae_makes_of_them(
    dataset: Dataset, sampler: Sampler, tmp_path: Path, batch: int
):
    samples = written(job(dataset, decode_originals=True), sampler, tmp_path / "out", batch)
    items = {item.name: item for item in dataset.items}
    originals = [(r, png) for r, png in samples if r["origin"] == "original"]
    assert len(originals) == 8
    for record, png in originals:
        assert record["accepted"] and record["attempt"] == 0
        pixels = read_image(items[record["source"]].read(), sampler.bundle.image_size)
        expected = sampler.decode(sampler.encode(pixels[None])[0])[0].transpose(1, 2, 0) * 255
        assert np.abs(decoded(png) - expected).max() <= 1


@pytest.mark.parametrize("decode_originals", [False, True])
def test_an_original_that_is_flat_is_not_accepted(
    sampler: Sampler, tmp_path: Path, decode_originals: bool
):
    for name, colour in (("happy/0", "grey"), ("happy/1", "pink"), ("sad/0", None)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
        picture = Image.new("RGB", (32, 32), colour) if colour else Image.fromarray(noise)
        picture.save(tmp_path / f"{name}.png")
    data = usable(read_dataset(tmp_path), sampler.bundle.image_size)
    decode = sampler.decode
    augmentation = job(data, decode_originals=decode_originals)
    ripple = 0.05 * np.sin(np.arange(32, dtype=np.float32))
    with pytest.MonkeyPatch.context() as patch:  # a VAE that nearly gives back what it gets
        patch.setattr(sampler, "encode", lambda images: (images, images))
        patch.setattr(sampler, "decode", lambda images: images + ripple)
        made = Augmenter(augmentation, sampler).make(range(3))
    assert sampler.decode == decode
    assert [record["accepted"] for record, _ in made] == [False, False, True]


def test_an_original_that_the_vae_breaks_is_not_accepted(
    dataset: Dataset, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
):
    decode = sampler.decode

    def broken(latents: np.ndarray) -> np.ndarray:
        images = decode(latents)
        images[1, 0, 0, 0] = np.inf
        return images

    monkeypatch.setattr(sampler, "decode", broken)
    made = Augmenter(job(dataset, decode_originals=True), sampler).make(range(3))
    assert [record["accepted"] for record, _ in made] == [True, False, True]


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [(np.zeros((8, 8, 4), np.uint8), 255), (np.full((8, 8), 0x4000, np.uint16), 0x40)],
    ids=["transparent", "16-bit grey"],
)
def test_originals_look_as_the_vote_sees_them(pixels: np.ndarray, expected: int):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    assert (original_pixels(file.getvalue()) == expected).all()


def test_the_output_is_the_same_in_any_batch_and_after_an_interruption(
    dataset: Dataset, sampler: Sampler, tmp_path: Path
):
    augmentation = job(dataset, noise_scale=2.0, repair_steps=2)
    whole = written(augmentation, sampler, tmp_path / "whole", batch=64)
    augmenter = Augmenter(augmentation, sampler)
    settings = augmenter.settings("imagefolder")
    writer = open_output(tmp_path / "cut", settings, resume=False)

    def stop(done: int) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(augmenter, writer, 5, stop)
    writer = open_output(tmp_path / "cut", settings, resume=True)
    assert 10 <= writer.done < augmentation.count
    execute(augmenter, writer, 3)
    for (one, a), (other, b) in zip(whole, read(tmp_path / "cut"), strict=True):
        assert (one["source"], one["attempt"]) == (other["source"], other["attempt"])
        assert np.abs(decoded(a) - decoded(b)).max() <= 2


def test_finished_pieces_of_a_batch_are_written(
    dataset: Dataset, sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    augmentation = job(dataset, noise_scale=50.0, attempts=3)
    whole = written(augmentation, sampler, tmp_path / "whole", batch=64)
    assert {record["attempt"] for record, _ in whole} == {0, 1, 2}
    monkeypatch.setattr(
        "synfer_rt.backends.loaded_engines._POSITIONS_PER_CALL", 2 * 64
    )  # 2 images at once
    cut_up = Sampler.of(sampler.bundle, "onnxruntime-cpu", threads=1)
    done: list[int] = []

    def stop(images: int) -> None:
        done.append(images)
        if images >= 11:
            raise KeyboardInterrupt

    augmenter = Augmenter(augmentation, cut_up)
    settings = augmenter.settings("imagefolder")
    writer = open_output(tmp_path / "cut", settings, resume=False)
    with pytest.raises(KeyboardInterrupt):
        execute(augmenter, writer, 64, stop)
    assert done == sorted(done) and done[:2] == [2, 4] and 11 <= writer.done < augmentation.count
    execute(augmenter, open_output(tmp_path / "cut", settings, resume=True), 64)
    for (one, a), (other, b) in zip(whole, read(tmp_path / "cut"), strict=True):
        assert (one["source"], one["attempt"]) == (other["source"], other["attempt"])
        assert np.abs(decoded(a) - decoded(b)).max() <= 2


def test_a_bundle_that_changes_ends_the_run(
    dataset: Dataset, tiny_bundle_path: Path, tmp_path: Path
):
    bundle = open_bundle(shutil.copytree(tiny_bundle_path, tmp_path / "bundle"))
    augmenter = Augmenter(job(dataset), Sampler.of(bundle, "onnxruntime-cpu", threads=1))
    writer = open_output(tmp_path / "out", augmenter.settings("imagefolder"), resume=False)

    def change(done: int) -> None:
        (bundle.path / "encoder.onnx").write_bytes(b"another")

    with pytest.raises(UserError, match=r"encoder\.onnx was changed or removed"):
        execute(augmenter, writer, 4, change)
    assert writer.done == 4


@pytest.mark.parametrize("repair_steps", [0, 2])
@pytest.mark.parametrize("format", FORMATS)
def test_originals_have_columns_of_the_same_types_as_additions(
    dataset: Dataset, sampler: Sampler, tmp_path: Path, format: str, repair_steps: int
):
    augmentation = job(dataset, attempts=1, repair_steps=repair_steps)
    written(augmentation, sampler, tmp_path / "out", format=format)
    original, augmented = (
        pa.Table.from_pylist([r for r, _ in read(tmp_path / "out") if r["origin"] == origin])
        for origin in ("original", "augmented")
    )
    assert original.schema == augmented.schema
    nobody_was_asked = dict.fromkeys(sampler.bundle.classes, 0.0)
    assert all(shares == nobody_was_asked for shares in original["probabilities"].to_pylist())
    assert not list(faults(tmp_path / "out", settings_of(tmp_path / "out")))
    loaded = rows(tmp_path / "out", format, tmp_path / "cache")
    assert Counter(row["origin"] for row in loaded) == {"original": 8, "augmented": 7}


def test_the_input_is_never_touched(
    dataset: Dataset, sampler: Sampler, long_tail: Path, tmp_path: Path
):
    def hashes() -> dict[Path, str]:
        files = (f for f in long_tail.rglob("*") if f.is_file())
        return {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    before = hashes()
    written(job(dataset), sampler, tmp_path / "out")
    assert hashes() == before


@pytest.mark.parametrize("left", [None, b"\x89PNG torn"])
def test_an_original_that_goes_during_the_run_ends_it(
    sampler: Sampler, tmp_path: Path, left: bytes | None
):
    for name in ("happy/0.png", "happy/1.png", "sad/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 36)).save(tmp_path / name)
    dataset = usable(read_dataset(tmp_path), sampler.bundle.image_size)
    augmenter = Augmenter(job(dataset), sampler)
    (tmp_path / "sad" / "0.png").unlink()
    if left is not None:
        (tmp_path / "sad" / "0.png").write_bytes(left)
    for index in (2, 3):  # the original and what is made from it
        with pytest.raises(UserError, match=r"sad/0\.png has changed or gone .*`resume=True`"):
            augmenter.make([index])
