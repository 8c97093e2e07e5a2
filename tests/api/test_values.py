"""Values that are refused, and those of NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt import UserError
from synfer_rt.api import Model
from synfer_rt.data.writers import run_file


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"count": 0}, "`count` must be at least 1, got 0"),
        ({"batch": 0}, "`batch` must be at least 1, got 0"),
        ({"budget": 9}, "`budget` needs `count_accepted`"),
        ({"count_accepted": True, "budget": 9}, "`budget` is 9"),
        ({"layout": "none", "layout_strength": 0.5}, "`layout_strength` needs a start face"),
        ({"size": "64x64"}, "(height, width)"),
        ({"layout_from": "/nowhere"}, "/nowhere"),
        ({"format": "zip"}, "`format` must be one of imagefolder, webdataset, parquet"),
        ({"mix_backends": True}, "add `resume=True`"),
        ({"count": 10**30}, "`count` must be from 1 to 2^63 - 1"),
        ({"count_accepted": "no"}, "`count_accepted` must be True or False, got 'no'"),
        ({"resume": "no"}, "`resume` must be True or False, got 'no'"),
        ({"mix_backends": 0}, "`mix_backends` must be True or False, got 0"),
        ({"format": ["parquet"]}, "`format` must be one of"),
        ({"layout_from": 3}, "`layout_from` must be a text or a Path, got 3"),
        ({"layout_from": "a\0b"}, "`layout_from` must be a possible name of a file"),
        ({"aus": np.array([1, 2])}, "`aus` must be a mapping"),
        ({"size": {64, 32}}, "(height, width)"),
        ({"size": np.array(3)}, "(height, width)"),
    ],
)
def test_python_gets_the_checks_of_the_command(
    model: Model, tmp_path: Path, settings: Any, said: str
) -> None:
    with pytest.raises(UserError) as error:
        model.write(tmp_path / "out", **settings)
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


def test_numbers_of_numpy_are_written_like_those_of_python(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    door: Any = model
    door.write(tmp_path / "out", count=2, steps=np.int64(1), threshold=np.float32(0.5))
    door.label(photos, out=tmp_path / "t.jsonl", accept_rate=np.float32(0.5))
    made = door.augment
    numbers = {"noise_scale": np.float32(8), "repair_steps": np.int64(0), "attempts": np.int64(1)}
    balance = {"sad": np.int64(2)}
    made(photos, tmp_path / "more", balance=balance, seed=np.int64(1), **numbers)
    settings = run_file.load(tmp_path / "more")
    assert settings["noise_scale"] == 8.0 and settings["attempts"] == settings["seed"] == 1
    assert made(photos, tmp_path / "one", balance=np.int64(2), repair_steps=0).count == 5


def test_progress_is_told_to_functions_alone(model: Model) -> None:
    odd: Any = "bar"
    with pytest.raises(UserError, match="`on_progress` must be a function, got 'bar'"):
        model.sample(count=1, on_progress=odd)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"decode_originals": "no"}, "`decode_originals` must be True or False, got 'no'"),
        ({"input_format": ["folders"]}, "no dataset format ['folders']"),
        ({"dataset": None}, "`dataset` must be a text or a Path, got None"),
        ({"out": 3}, "`out` must be a text or a Path, got 3"),
    ],
)
def test_augment_refuses_values_of_another_type(
    model: Model, photos: Path, tmp_path: Path, settings: Any, said: str
) -> None:
    given: Any = {"dataset": photos, "out": tmp_path / "out", **settings}
    with pytest.raises(UserError) as error:
        model.augment(**given)
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("images", [None, 3, b"photos", {"photos": 1}, np.array(3)])
def test_label_refuses_what_is_no_list_of_paths(model: Model, images: Any) -> None:
    with pytest.raises(UserError, match="`images` must be a path or a list of paths"):
        model.label(images)
