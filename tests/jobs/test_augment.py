"""Augmentation of a rare class, on the tiny bundle and real files."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import shutil
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from PIL import Image

from synfer_rt.backends import Value
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.commands.augment import augment, usable
from synfer_rt.data.contact_sheet import contact_sheet
from synfer_rt.data.datasets import Dataset, read_dataset
from synfer_rt.data.images import read_image
from synfer_rt.data.writers import FORMATS, open_output, read, run_file
from synfer_rt.data.writers.atomic import partial
from synfer_rt.errors import UserError
from synfer_rt.jobs.augment import Augmentation, Augmenter, execute, original_pixels
from synfer_rt.jobs.balance import additions, targets
from synfer_rt.jobs.verify import faults, settings_of
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler
from tests import tiny_bundle as tiny
from tests.hugging_face import rows
from tests.small_datasets import picture

COUNTS = {"happy": 5, "sad": 2, "fear": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long tail, a broken image and one without a class."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(3)
    for name, count in COUNTS.items():
        (root / name).mkdir()
        for i in range(count):
            pixels = draw.integers(0, 256, (40, 36, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    (root / "fear" / "broken.png").write_bytes(b"\x89PNG torn")
    Image.new("L", (9, 9)).save(root / "stray.png")
    return root


@pytest.fixture(scope="module")
def dataset(folder: Path, sampler: Sampler) -> Dataset:
    return usable(read_dataset(folder), sampler.bundle.image_size)


def job(dataset: Dataset, **changes: Any) -> Augmentation:
    counts = dataset.counts()
    fields: dict[str, Any] = {
        "originals": dataset.items,
        "additions": additions(counts, targets(counts, "max")),
        "noise_scale": 1.0,
        "repair_steps": 0,
        "repair_strength": 0.5,
        "attempts": 2,
        "seed": 4,
    }
    return Augmentation(**fields | changes)


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)), np.int16)


def written(
    job: Augmentation, sampler: Sampler, out: Path, batch: int = 4, format: str = "imagefolder"
) -> list[Any]:
    augmenter = Augmenter(job, sampler)
    writer = open_output(out, augmenter.settings(format), resume=False)
    execute(augmenter, writer, batch)
    return list(read(out))


class TestTargets:
    def test_max_brings_every_class_to_the_largest(self):
        assert targets(COUNTS, "max") == {"happy": 5, "sad": 5, "fear": 5}

    def test_a_number_takes_nothing_away(self):
        assert targets(COUNTS, "3") == {"happy": 5, "sad": 3, "fear": 3}

    def test_a_file_names_classes_in_the_usual_ways(self, tmp_path: Path):
        (tmp_path / "b.json").write_text(json.dumps({"sadness": 4, "Happy": 1}))
        assert targets(COUNTS, str(tmp_path / "b.json")) == {"happy": 5, "sad": 4, "fear": 1}

    def test_a_class_without_images_is_refused(self, tmp_path: Path):
        (tmp_path / "b.json").write_text(json.dumps({"contempt": 4}))
        with pytest.raises(UserError, match="no image to vary"):
            targets(COUNTS, str(tmp_path / "b.json"))

    @pytest.mark.parametrize("wrong", ["most", "-3", "1.5", "\u00b2", "\u0663"])
    def test_anything_else_is_refused(self, wrong: str):
        with pytest.raises(UserError, match="--balance"):
            targets(COUNTS, wrong)

    @pytest.mark.parametrize("text", ['{"sad": Infinity}', '{"sad": NaN}', "[" * 100_000, "[3]"])
    def test_a_file_without_numbers_is_refused(self, tmp_path: Path, text: str):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(UserError, match="neither max, a number nor a JSON file"):
            targets(COUNTS, str(tmp_path / "b.json"))

    @pytest.mark.parametrize("number", ["5000000", "1000000000", "9" * 5000])
    def test_more_additions_than_anybody_makes_are_refused(self, tmp_path: Path, number: str):
        (tmp_path / "b.json").write_text(json.dumps({"sad": float(number), "fear": 6_000_000}))
        for balance in (number, str(tmp_path / "b.json")):
            with pytest.raises(
                UserError, match=r"--balance .*(more than 10000000 additions|infin)"
            ):
                targets(COUNTS, balance)
        assert targets(COUNTS, "0" * 30 + "3000000")["fear"] == 3_000_000

    def test_additions_fill_up_exactly_and_take_turns(self):
        labels = additions(COUNTS, targets(COUNTS, "max"))
        assert Counter(labels) == {"sad": 3, "fear": 4}
        assert labels[:4] == ("sad", "fear", "sad", "fear")


class TestOutput:
    def test_has_the_distribution_that_was_asked_for(
        self, dataset: Dataset, sampler: Sampler, tmp_path: Path
    ):
        samples = written(job(dataset), sampler, tmp_path / "out")
        assert Counter(record["label"] for record, _ in samples) == dict.fromkeys(COUNTS, 5)
        assert [record["index"] for record, _ in samples] == list(range(15))
        names = {item.name: item.label for item in dataset.items}
        for record, _ in samples:
            assert names[record["source"]] == record["label"]

    def test_originals_keep_their_pixels_and_size(
        self, dataset: Dataset, sampler: Sampler, folder: Path, tmp_path: Path
    ):
        samples = written(job(dataset), sampler, tmp_path / "out")
        originals = [(r, png) for r, png in samples if r["origin"] == "original"]
        assert len(originals) == 8
        for record, png in originals:
            before = np.asarray(Image.open(folder / record["source"]), np.int16)
            np.testing.assert_array_equal(decoded(png), before)

    @pytest.mark.parametrize("batch", [3, 16])
    def test_decoded_originals_are_what_the_vae_makes_of_them(
        self, dataset: Dataset, sampler: Sampler, tmp_path: Path, batch: int
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
        self, sampler: Sampler, tmp_path: Path, decode_originals: bool
    ):
        for name, colour in (("happy/0", "grey"), ("happy/1", "pink"), ("sad/0", None)):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
            picture = Image.new("RGB", (32, 32), colour) if colour else Image.fromarray(noise)
            picture.save(tmp_path / f"{name}.png")
        data = usable(read_dataset(tmp_path), sampler.bundle.image_size)
        decode = sampler.decode
        plan = job(data, decode_originals=decode_originals)
        ripple = 0.05 * np.sin(np.arange(32, dtype=np.float32))
        with pytest.MonkeyPatch.context() as patch:  # a VAE that nearly gives back what it gets
            patch.setattr(sampler, "encode", lambda images: (images, images))
            patch.setattr(sampler, "decode", lambda images: images + ripple)
            made = Augmenter(plan, sampler).make(range(3))
        assert sampler.decode == decode
        assert [record["accepted"] for record, _ in made] == [False, False, True]

    def test_an_original_that_the_vae_breaks_is_not_accepted(
        self, dataset: Dataset, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
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
    def test_originals_look_as_the_vote_sees_them(self, pixels: np.ndarray, expected: int):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        assert (original_pixels(file.getvalue()) == expected).all()

    def test_is_the_same_in_any_batch_and_after_an_interruption(
        self, dataset: Dataset, sampler: Sampler, tmp_path: Path
    ):
        plan = job(dataset, noise_scale=2.0, repair_steps=2)
        whole = written(plan, sampler, tmp_path / "whole", batch=64)
        augmenter = Augmenter(plan, sampler)
        settings = augmenter.settings("imagefolder")
        writer = open_output(tmp_path / "cut", settings, resume=False)

        def stop(done: int) -> None:
            if done >= 10:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            execute(augmenter, writer, 5, stop)
        writer = open_output(tmp_path / "cut", settings, resume=True)
        assert 10 <= writer.done < plan.count
        execute(augmenter, writer, 3)
        for (one, a), (other, b) in zip(whole, read(tmp_path / "cut"), strict=True):
            assert (one["source"], one["attempt"]) == (other["source"], other["attempt"])
            assert np.abs(decoded(a) - decoded(b)).max() <= 2

    def test_finished_pieces_of_a_batch_are_written(
        self, dataset: Dataset, sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        plan = job(dataset, noise_scale=50.0, attempts=3)
        whole = written(plan, sampler, tmp_path / "whole", batch=64)
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

        augmenter = Augmenter(plan, cut_up)
        settings = augmenter.settings("imagefolder")
        writer = open_output(tmp_path / "cut", settings, resume=False)
        with pytest.raises(KeyboardInterrupt):
            execute(augmenter, writer, 64, stop)
        assert done == sorted(done) and done[:2] == [2, 4] and 11 <= writer.done < plan.count
        execute(augmenter, open_output(tmp_path / "cut", settings, resume=True), 64)
        for (one, a), (other, b) in zip(whole, read(tmp_path / "cut"), strict=True):
            assert (one["source"], one["attempt"]) == (other["source"], other["attempt"])
            assert np.abs(decoded(a) - decoded(b)).max() <= 2

    def test_a_bundle_that_changes_ends_the_run(
        self, dataset: Dataset, tiny_bundle_path: Path, tmp_path: Path
    ):
        bundle = open_bundle(shutil.copytree(tiny_bundle_path, tmp_path / "bundle"))
        augmenter = Augmenter(job(dataset), Sampler.of(bundle, "onnxruntime-cpu", threads=1))
        writer = open_output(tmp_path / "out", augmenter.settings("imagefolder"), resume=False)

        def change(done: int) -> None:
            (bundle.path / "encoder.onnx").write_bytes(b"another")

        with pytest.raises(UserError, match=r"encoder\.onnx has changed or gone"):
            execute(augmenter, writer, 4, change)
        assert writer.done == 4

    @pytest.mark.parametrize("repair_steps", [0, 2])
    @pytest.mark.parametrize("format", FORMATS)
    def test_originals_have_columns_of_the_same_types_as_additions(
        self, dataset: Dataset, sampler: Sampler, tmp_path: Path, format: str, repair_steps: int
    ):
        plan = job(dataset, attempts=1, repair_steps=repair_steps)
        written(plan, sampler, tmp_path / "out", format=format)
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

    def test_never_touches_the_input(
        self, dataset: Dataset, sampler: Sampler, folder: Path, tmp_path: Path
    ):
        def hashes() -> dict[Path, str]:
            files = (f for f in folder.rglob("*") if f.is_file())
            return {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

        before = hashes()
        written(job(dataset), sampler, tmp_path / "out")
        assert hashes() == before


class TestAdditions:
    def made(self, dataset: Dataset, sampler: Sampler, **changes: Any) -> list[Any]:
        plan = job(dataset, **changes)
        return Augmenter(plan, sampler).make(range(len(plan.originals), plan.count))

    def test_without_noise_are_the_decoded_means(self, dataset: Dataset, sampler: Sampler):
        items = {item.name: item for item in dataset.items}
        for record, png in self.made(dataset, sampler, noise_scale=0.0):
            pixels = read_image(items[record["source"]].read(), sampler.bundle.image_size)
            mean, _ = sampler.encode(pixels[None])
            expected = sampler.decode(mean)[0].transpose(1, 2, 0) * 255
            assert np.abs(decoded(png) - expected).max() <= 1

    def test_move_further_with_more_noise(self, dataset: Dataset, sampler: Sampler):
        plain, little, much = (
            np.stack([decoded(png) for _, png in self.made(dataset, sampler, **changes)])
            for changes in (
                {"noise_scale": 0.0, "attempts": 1},
                {"noise_scale": 0.3, "attempts": 1},
                {"noise_scale": 3.0, "attempts": 1},
            )
        )
        near, far = np.abs(little - plain).mean(), np.abs(much - plain).mean()
        assert 0 < near < far

    def test_a_flat_one_is_not_accepted_and_tried_again(
        self, dataset: Dataset, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
    ):
        decode = sampler.decode
        monkeypatch.setattr(sampler, "decode", lambda latents: 0.5 + 0 * decode(latents))
        plan = job(dataset)
        augmenter = Augmenter(plan, sampler)
        made = augmenter.make(range(len(plan.originals), plan.count))
        label = max(made[0][0]["probabilities"], key=made[0][0]["probabilities"].__getitem__)
        everywhere = [record["probabilities"][label] for record, _ in made]
        assert len(set(everywhere)) == 1  # the vote is as sure of each
        assert not any(record["accepted"] for record, _ in made)
        assert augmenter.broken == len(made)

    def test_a_sound_one_comes_before_a_broken_one(
        self, dataset: Dataset, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
    ):
        decode, calls = sampler.decode, [0]

        def first_flat(latents: np.ndarray) -> np.ndarray:
            calls[0] += 1
            return 0.5 + (calls[0] > 1) * (decode(latents) - 0.5)

        monkeypatch.setattr(sampler, "decode", first_flat)
        monkeypatch.setattr("synfer_rt.jobs.augment._Candidate.accepted", property(lambda _: False))
        made = Augmenter(job(dataset, attempts=2), sampler).make([8])
        assert made[0][0]["attempt"] == 1 and decoded(made[0][1]).std() > 1

    @pytest.mark.parametrize("decode_originals", [False, True])
    def test_of_grey_originals_are_grey_and_judged_so(
        self, voting_bundle: Bundle, tmp_path: Path, decode_originals: bool
    ):
        """One class is grey in files of one channel and of three, the other in colour."""
        sampler = Sampler.of(voting_bundle, "onnxruntime-cpu", threads=1)
        draw = np.random.default_rng(5)
        for label, count in (("happy", 4), ("sad", 2), ("fear", 1)):
            (tmp_path / "data" / label).mkdir(parents=True)
            for i in range(count):
                picture = Image.fromarray(draw.integers(0, 256, (40, 36, 3), np.uint8))
                if label != "fear":
                    picture = picture.convert("L").convert("L" if i else "RGB")
                picture.save(tmp_path / "data" / label / f"{i}.png")
        data = usable(read_dataset(tmp_path / "data"), voting_bundle.image_size)
        plan = job(data, attempts=1, repair_steps=2, decode_originals=decode_originals)
        made = Augmenter(plan, sampler).make(range(plan.count))
        for record, png in made:
            pixels = decoded(png)
            grey = bool((pixels == pixels[..., :1]).all())
            assert grey == (record["label"] != "fear"), record["source"]
        for record, png in made[len(data.items) :]:
            image = decoded(png).transpose(2, 0, 1)[None].astype("f4") / 255
            if record["label"] == "fear":
                continue
            (verdict,) = sampler.ensemble.judge(image, [record["label"]], rectify=False)
            for name, share in verdict.probabilities.items():
                assert record["probabilities"][name] == pytest.approx(share, abs=0.05)

    def test_of_one_source_differ(self, dataset: Dataset, sampler: Sampler):
        made = self.made(dataset, sampler, attempts=1)
        fears = [png for record, png in made if record["label"] == "fear"]
        assert len(fears) == 4 and len(set(fears)) == 4

    def test_sources_take_turns(self, dataset: Dataset, sampler: Sampler):
        made = self.made(dataset, sampler, attempts=1)
        used = Counter(r["source"] for r, _ in made if r["label"] == "sad")
        assert sorted(used.values()) == [1, 2]

    def test_are_accepted_only_when_the_vote_agrees(self, dataset: Dataset, sampler: Sampler):
        for record, _ in self.made(dataset, sampler):
            shares = record["probabilities"]
            agreed = shares[record["label"]] == max(shares.values())
            assert record["accepted"] == agreed

    def test_more_attempts_show_the_class_no_worse(self, dataset: Dataset, sampler: Sampler):
        def shares(attempts: int) -> dict[int, float]:
            made = self.made(dataset, sampler, attempts=attempts, noise_scale=6.0)
            return {r["index"]: r["probabilities"][r["label"]] for r, _ in made}

        once, often = shares(1), shares(6)
        assert all(often[i] >= once[i] for i in once)
        assert any(often[i] > once[i] for i in once)

    def test_repair_is_recorded_and_changes_the_image(self, dataset: Dataset, sampler: Sampler):
        (plain, before), *_ = self.made(dataset, sampler, attempts=1)
        (record, after), *_ = self.made(dataset, sampler, attempts=1, repair_steps=3)
        assert (plain["prompt"], plain["steps"]) == ("", 0)
        assert record["steps"] == 3 and record["label"] == "fear"
        assert "fearful" in record["prompt"] and record["aus"]["AU20"] > 0.5
        assert before != after

    def test_are_repaired_in_equal_pieces_and_the_last_is_padded(
        self, dataset: Dataset, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
    ):
        whole = self.made(dataset, sampler, attempts=1, repair_steps=2)
        assert len(whole) == 7
        sizes: list[int] = []

        class Counting(Sampler):
            def condition(self, requests: Sequence[Request]) -> dict[str, Value]:
                sizes.append(len(requests))
                return super().condition(requests)

        monkeypatch.setattr(
            "synfer_rt.backends.loaded_engines._POSITIONS_PER_CALL", 3 * math.prod(tiny.LATENT[1:])
        )
        pieces = Counting.of(sampler.bundle, "onnxruntime-cpu", threads=1)
        again = self.made(dataset, pieces, attempts=1, repair_steps=2)
        assert sizes == [3, 3, 3]
        for (one, a), (other, b) in zip(whole, again, strict=True):
            assert (one["source"], one["prompt"]) == (other["source"], other["prompt"])
            assert np.abs(decoded(a) - decoded(b)).max() <= 1


class TestRefusals:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"noise_scale": -1.0},
            {"noise_scale": float("nan")},
            {"repair_steps": -1},
            {"repair_strength": 1.0},
            {"attempts": 0},
            {"seed": -1},
            {"noise_scale": "8"},
            {"repair_steps": 2.0},
            {"attempts": True},
            {"repair_strength": float("nan")},
            {"seed": 1.5},
        ],
    )
    def test_a_number_outside_its_range(self, dataset: Dataset, wrong: dict[str, Any]):
        with pytest.raises(UserError, match="outside its range"):
            job(dataset, **wrong)

    def test_more_repair_than_timesteps(self, dataset: Dataset, sampler: Sampler):
        with pytest.raises(UserError, match="do not fit"):
            Augmenter(job(dataset, repair_steps=900), sampler)

    def test_several_splits_at_once(self, tmp_path: Path):
        for split in ("train", "test"):
            (tmp_path / split / "happy").mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / "happy" / "a.png")
        with pytest.raises(UserError, match="--split"):
            usable(read_dataset(tmp_path), (8, 8))

    def test_a_split_beside_images_of_none(self, tmp_path: Path):
        for name in ("train/happy/a", "other/happy/b", "c"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
        with pytest.raises(UserError, match=r"images of none \(other/happy/b\.png\).* --split"):
            usable(read_dataset(tmp_path), (8, 8))
        assert len(usable(read_dataset(tmp_path, split="train"), (8, 8)).items) == 1
        shutil.rmtree(tmp_path / "other")  # what has no label is left out anyway
        assert len(usable(read_dataset(tmp_path), (8, 8)).items) == 1

    def test_splits_that_other_tables_say_nothing_of(self, tmp_path: Path):
        for split in ("train", "test"):
            (tmp_path / "happy").mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "happy" / f"{split}.png")
            (tmp_path / f"{split}.csv").write_text(f"file\nhappy/{split}.png\n")
        rows = "happy/train.png,8\nhappy/test.png,8\n"
        (tmp_path / "width.csv").write_text(f"file,width\n{rows}")
        with pytest.raises(UserError, match=r"the splits test, train.* --split"):
            usable(read_dataset(tmp_path), (8, 8))

    @pytest.mark.parametrize("left", [None, b"\x89PNG torn"])
    def test_an_original_that_goes_while_the_run_goes_on(
        self, sampler: Sampler, tmp_path: Path, left: bytes | None
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
            with pytest.raises(UserError, match=r"sad/0\.png has changed or gone .*--resume"):
                augmenter.make([index])

    def test_a_dataset_without_labels(self, tmp_path: Path):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
        with pytest.raises(UserError, match="no labelled image"):
            usable(read_dataset(tmp_path), (8, 8))


class TestCommand:
    def command(self, bundle: Path, *arguments: object) -> Any:
        options = ["--bundle", bundle, "--backend", "onnxruntime-cpu", "--threads", 1]
        return CliRunner().invoke(
            augment, list(map(str, (*arguments, *options))), catch_exceptions=False
        )

    def test_writes_a_balanced_dataset_and_lists_what_was_skipped(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        out = tmp_path / "out"
        found = self.command(tiny_bundle_path, folder, "--out", out, "--balance", 4)
        assert found.exit_code == 0
        assert "fear: 1 + 3" in found.output and "2 files skipped" in found.output
        lines = (run_file.folder(out) / "skipped.jsonl").read_text().splitlines()
        skipped = {json.loads(line)["file_name"] for line in lines}
        assert skipped == {"fear/broken.png", "stray.png"}
        assert {path.name for path in (out / "fear").iterdir()} >= {"00000000.png"}
        counts = Counter(item.label for item in read_dataset(out).items)
        assert counts == {"happy": 5, "sad": 4, "fear": 4}

    def test_lists_each_of_several_files_of_one_name(self, tiny_bundle_path: Path, tmp_path: Path):
        with tarfile.open(tmp_path / "0.tar", "w") as tar:
            for shade in (10, 20, 30):
                entry = tarfile.TarInfo("happy/0.jpg")
                entry.size = len(picture(shade))
                tar.addfile(entry, io.BytesIO(picture(shade)))
        found = self.command(tiny_bundle_path, tmp_path / "0.tar", "--out", tmp_path / "out")
        assert found.exit_code == 0 and "2 files skipped" in found.output
        listed = run_file.folder(tmp_path / "out") / "skipped.jsonl"
        assert [json.loads(line)["file_name"] for line in listed.open()] == [
            "0.tar/happy/0.jpg"
        ] * 2

    def test_shows_the_first_additions_of_each_class(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        out = tmp_path / "out"
        found = self.command(tiny_bundle_path, folder, "--out", out, "--balance", 4)
        page = run_file.folder(out) / "contact-sheet.html"
        assert f"13 images in {out}; look at {page}\n" in found.output
        png = base64.b64decode(page.read_text().partition("base64,")[2].partition('"')[0])
        additions = [s for s in read(out) if s[0]["origin"] == "augmented"]
        assert Counter(record["label"] for record, _ in additions) == {"sad": 2, "fear": 3}
        wanted = contact_sheet(additions, ["sad", "fear"])
        np.testing.assert_array_equal(decoded(png), np.asarray(wanted, np.int16))

    def test_without_additions_there_is_nothing_to_show(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        out = tmp_path / "out"
        found = self.command(tiny_bundle_path, folder, "--out", out, "--balance", 1)
        assert found.exit_code == 0 and f"8 images in {out}\n" in found.output
        assert not (run_file.folder(out) / "contact-sheet.html").exists()

    def test_says_which_labels_it_did_not_understand(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        shutil.copytree(folder, tmp_path / "data")
        shutil.copytree(folder / "sad", tmp_path / "data" / "calm")
        said = self.command(tiny_bundle_path, tmp_path / "data", "--out", tmp_path / "a").stderr
        count = len(list((folder / "sad").iterdir()))
        assert f"{count} of " in said and "labels not understood, so left out" in said
        assert f"{count}: it is in no folder of a class: 'calm' is no known expression" in said

    def test_says_when_size_tells_additions_apart(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        found = self.command(tiny_bundle_path, folder, "--out", tmp_path / "a")
        assert "32x32, not all originals are" in found.stderr
        options = ("--out", tmp_path / "b", "--decode-originals")
        assert "not all originals" not in self.command(tiny_bundle_path, folder, *options).stderr
        sizes = {decoded(png).shape for _, png in read(tmp_path / "b")}
        assert sizes == {(32, 32, 3)}
        again = self.command(tiny_bundle_path, tmp_path / "b", "--out", tmp_path / "c")
        assert again.exit_code == 0 and "not all originals" not in again.stderr

    def test_parquet_has_where_each_image_comes_from(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        out = tmp_path / "out"
        options = ("--out", out, "--balance", 4, "--format", "parquet")
        found = self.command(tiny_bundle_path, folder, *options)
        assert found.exit_code == 0
        records = [record for record, _ in read(out)]
        assert Counter(record["origin"] for record in records) == {"original": 8, "augmented": 5}
        for record in records:
            assert record["source"].startswith(f"{record['label']}/")
            made = record["origin"] == "augmented"
            assert record["noise_scale"] == (8.0 if made else 0.0)
            assert record["attempt"] in (range(4) if made else [0])
            assert record["rectified"] is False

    def test_resumes_beside_the_table_that_it_reads(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        shutil.copytree(folder, tmp_path / "data")
        listing, out = tmp_path / "data" / "list.csv", tmp_path / "data" / "out"
        listing.write_text("file,label\nhappy/0.png,happy\nhappy/1.png,happy\nsad/0.png,sad\n")
        arguments = (tiny_bundle_path, listing, "--out", out)
        assert self.command(*arguments).exit_code == 0
        (out / "metadata.jsonl").rename(partial(out / "metadata.jsonl"))  # killed before its end
        assert self.command(*arguments, "--resume").exit_code == 0
        assert len(list(read(out))) == 4

    def test_resumes_its_own_run_and_no_other(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        arguments = (folder, "--out", tmp_path / "out", "--balance", 3)
        self.command(tiny_bundle_path, *arguments)
        assert self.command(tiny_bundle_path, *arguments, "--resume").exit_code == 0
        with pytest.raises(UserError, match="another noise scale"):
            self.command(tiny_bundle_path, *arguments, "--resume", "--noise-scale", 2)
        with pytest.raises(UserError, match="another decode originals"):
            self.command(tiny_bundle_path, *arguments, "--resume", "--decode-originals")

    def test_resumes_with_no_other_files(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        data = shutil.copytree(folder, tmp_path / "data")
        arguments = (tiny_bundle_path, data, "--out", tmp_path / "out", "--balance", 1)
        assert self.command(*arguments).exit_code == 0
        Image.new("RGB", (40, 36)).save(data / "happy" / "0.png")
        with pytest.raises(UserError, match="another dataset"):
            self.command(*arguments, "--resume")

    def test_an_output_that_cannot_be_looked_at_is_refused(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        (tmp_path / "loop").symlink_to("loop")
        for out in ("loop", "a" * 300):
            with pytest.raises(UserError):
                self.command(tiny_bundle_path, folder, "--out", tmp_path / out, "--balance", 1)
