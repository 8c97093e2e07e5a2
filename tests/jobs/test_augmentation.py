"""What an augmentation refuses: numbers, and datasets that cannot be filled up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synfer_rt.data.datasets import Dataset, read_dataset
from synfer_rt.errors import UserError
from synfer_rt.jobs.augment import Augmenter
from synfer_rt.jobs.originals import usable
from synfer_rt.sampling.sampler import Sampler
from tests.jobs.long_tail import job


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
def test_a_number_outside_its_range_is_refused(dataset: Dataset, wrong: dict[str, Any]):
    with pytest.raises(UserError, match=rf"`{next(iter(wrong))}` must be a"):
        job(dataset, **wrong)


def test_more_repair_steps_than_timesteps_are_refused(dataset: Dataset, sampler: Sampler):
    with pytest.raises(UserError, match="`steps` must be a whole number from 1 to"):
        Augmenter(job(dataset, repair_steps=900), sampler)


def test_several_splits_at_once_are_refused(tmp_path: Path):
    for split in ("train", "test"):
        (tmp_path / split / "happy").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / split / "happy" / "a.png")
    with pytest.raises(UserError, match="`split`"):
        usable(read_dataset(tmp_path), (8, 8))


def test_a_split_beside_images_of_none_is_refused(tmp_path: Path):
    for name in ("train/happy/a", "other/happy/b", "c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=r"images of none \(other/happy/b\.png\).* `split`"):
        usable(read_dataset(tmp_path), (8, 8))
    assert len(usable(read_dataset(tmp_path, split="train"), (8, 8)).items) == 1
    shutil.rmtree(tmp_path / "other")  # what has no label is left out anyway
    assert len(usable(read_dataset(tmp_path), (8, 8)).items) == 1


def test_splits_are_refused_where_other_tables_do_not_name_them(tmp_path: Path):
    for split in ("train", "test"):
        (tmp_path / "happy").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "happy" / f"{split}.png")
        (tmp_path / f"{split}.csv").write_text(f"file\nhappy/{split}.png\n")
    rows = "happy/train.png,8\nhappy/test.png,8\n"
    (tmp_path / "width.csv").write_text(f"file,width\n{rows}")
    with pytest.raises(UserError, match=r"the splits test, train.* `split`"):
        usable(read_dataset(tmp_path), (8, 8))


def test_a_dataset_without_labels_is_refused(tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="no labelled image"):
        usable(read_dataset(tmp_path), (8, 8))
