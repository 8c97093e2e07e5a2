"""Variations of real images: drawn around them, repaired, judged and tried again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synfer_rt.backends import Value
from synfer_rt.bundle import Bundle
from synfer_rt.data.datasets import Dataset, read_dataset
from synfer_rt.data.images import read_image
from synfer_rt.errors import UserError
from synfer_rt.jobs.augment import Augmenter
from synfer_rt.jobs.originals import usable
from synfer_rt.sampling.sampler import Sampler
from tests import tiny_bundle as tiny
from tests.jobs.long_tail import decoded, job


def made_of(dataset: Dataset, sampler: Sampler, **changes: Any) -> list[Any]:
    augmentation = job(dataset, **changes)
    return Augmenter(augmentation, sampler).make(
        range(len(augmentation.originals), augmentation.count)
    )


def test_variations_without_noise_are_the_decoded_means(dataset: Dataset, sampler: Sampler):
    items = {item.name: item for item in dataset.items}
    for record, png in made_of(dataset, sampler, noise_scale=0.0):
        pixels = read_image(items[record["source"]].read(), sampler.bundle.image_size)
        mean, _ = sampler.encode(pixels[None])
        expected = sampler.decode(mean)[0].transpose(1, 2, 0) * 255
        assert np.abs(decoded(png) - expected).max() <= 1


def test_variations_move_further_with_more_noise(dataset: Dataset, sampler: Sampler):
    plain, little, much = (
        np.stack([decoded(png) for _, png in made_of(dataset, sampler, **changes)])
        for changes in (
            {"noise_scale": 0.0, "attempts": 1},
            {"noise_scale": 0.3, "attempts": 1},
            {"noise_scale": 3.0, "attempts": 1},
        )
    )
    near, far = np.abs(little - plain).mean(), np.abs(much - plain).mean()
    assert 0 < near < far


def test_a_flat_variation_is_not_accepted(
    dataset: Dataset, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
):
    decode = sampler.decode
    monkeypatch.setattr(sampler, "decode", lambda latents: 0.5 + 0 * decode(latents))
    # So few attempts that they stop no run.
    augmentation = job(dataset, additions=job(dataset).additions[:3], attempts=1)
    augmenter = Augmenter(augmentation, sampler)
    made = augmenter.make(range(len(augmentation.originals), augmentation.count))
    label = max(made[0][0]["probabilities"], key=made[0][0]["probabilities"].__getitem__)
    everywhere = [record["probabilities"][label] for record, _ in made]
    assert len(set(everywhere)) == 1  # the vote is as sure of each
    assert not any(record["accepted"] for record, _ in made)
    assert augmenter.broken == len(made)


def test_variations_that_are_mostly_broken_end_the_run(
    dataset: Dataset, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
):
    decode = sampler.decode

    def breaking(part: float) -> list[Any]:
        def damaged(latents: np.ndarray) -> np.ndarray:
            images = decode(latents)
            images[: round(part * len(images))] = 0.5
            return images

        monkeypatch.setattr(sampler, "decode", damaged)
        return made_of(dataset, sampler, attempts=1)

    assert len(breaking(3 / 7)) == 7  # some originals may be blank
    with pytest.raises(UserError, match=r"4 of the first 7 images are broken .*drawn from"):
        breaking(4 / 7)


def test_a_sound_variation_comes_before_a_broken_one(
    dataset: Dataset, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
):
    decode, calls = sampler.decode, [0]

    def first_flat(latents: np.ndarray) -> np.ndarray:
        calls[0] += 1
        return 0.5 + (calls[0] > 1) * (decode(latents) - 0.5)

    monkeypatch.setattr(sampler, "decode", first_flat)
    monkeypatch.setattr("synfer_rt.jobs.variations.Variation.accepted", property(lambda _: False))
    made = Augmenter(job(dataset, attempts=2), sampler).make([8])
    assert made[0][0]["attempt"] == 1 and decoded(made[0][1]).std() > 1


@pytest.mark.parametrize("decode_originals", [False, True])
def test_variations_of_grey_originals_are_grey_and_judged_so(
    voting_bundle: Bundle, tmp_path: Path, decode_originals: bool
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
    augmentation = job(data, attempts=1, repair_steps=2, decode_originals=decode_originals)
    made = Augmenter(augmentation, sampler).make(range(augmentation.count))
    for record, png in made:
        pixels = decoded(png)
        grey = bool((pixels == pixels[..., :1]).all())
        assert grey == (record["label"] != "fear"), record["source"]
    for record, png in made[len(data.items) :]:
        image = decoded(png).transpose(2, 0, 1)[None].astype("f4") / 255
        if record["label"] == "fear":
            continue
        (verdict,) = sampler.annotators.judge(image, [record["label"]], rectify=False)
        for name, share in verdict.probabilities.items():
            assert record["probabilities"][name] == pytest.approx(share, abs=0.05)


def test_variations_of_one_source_differ(dataset: Dataset, sampler: Sampler):
    made = made_of(dataset, sampler, attempts=1)
    fears = [png for record, png in made if record["label"] == "fear"]
    assert len(fears) == 4 and len(set(fears)) == 4


def test_sources_take_turns(dataset: Dataset, sampler: Sampler):
    made = made_of(dataset, sampler, attempts=1)
    used = Counter(r["source"] for r, _ in made if r["label"] == "sad")
    assert sorted(used.values()) == [1, 2]


def test_variations_are_accepted_only_when_the_vote_agrees(dataset: Dataset, sampler: Sampler):
    for record, _ in made_of(dataset, sampler):
        shares = record["probabilities"]
        agreed = shares[record["label"]] == max(shares.values())
        assert record["accepted"] == agreed


def test_more_attempts_show_the_class_no_worse(dataset: Dataset, sampler: Sampler):
    def shares(attempts: int) -> dict[int, float]:
        made = made_of(dataset, sampler, attempts=attempts, noise_scale=6.0)
        return {r["index"]: r["probabilities"][r["label"]] for r, _ in made}

    once, often = shares(1), shares(6)
    assert all(often[i] >= once[i] for i in once)
    assert any(often[i] > once[i] for i in once)


def test_repair_is_recorded_and_changes_the_image(dataset: Dataset, sampler: Sampler):
    (plain, before), *_ = made_of(dataset, sampler, attempts=1)
    (record, after), *_ = made_of(dataset, sampler, attempts=1, repair_steps=3)
    assert (plain["prompt"], plain["steps"]) == ("", 0)
    assert record["steps"] == 3 and record["label"] == "fear"
    assert "fearful" in record["prompt"] and record["aus"]["AU20"] > 0.5
    assert before != after


@pytest.mark.parametrize("solver", ["dpmpp-2m", "lcm"])
def test_variations_are_repaired_in_equal_pieces_and_the_last_is_padded(
    dataset: Dataset, sampler: Sampler, monkeypatch: pytest.MonkeyPatch, solver: str
):
    defaults = replace(sampler.bundle.defaults, solver=solver)
    bundle = replace(sampler.bundle, defaults=defaults)
    in_one = Sampler.of(bundle, "onnxruntime-cpu", threads=1)
    whole = made_of(dataset, in_one, attempts=1, repair_steps=2)
    assert len(whole) == 7
    sizes: list[int] = []

    class Counting(Sampler):
        def denoise(self, latents: Value, *others: Any, **named: Any) -> Iterator[Value]:
            sizes.append(len(latents))
            return super().denoise(latents, *others, **named)

    monkeypatch.setattr(
        "synfer_rt.backends.loaded_engines._POSITIONS_PER_CALL", 3 * math.prod(tiny.LATENT[1:])
    )
    pieces = Counting.of(bundle, "onnxruntime-cpu", threads=1)
    again = made_of(dataset, pieces, attempts=1, repair_steps=2)
    assert sizes == [3, 3, 3]
    for (one, a), (other, b) in zip(whole, again, strict=True):
        assert (one["source"], one["prompt"]) == (other["source"], other["prompt"])
        assert np.abs(decoded(a) - decoded(b)).max() <= 1
