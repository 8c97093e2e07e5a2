"""The command in a dataset card makes the run again that the card is of."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from synfer_rt.commands.augment import augment
from synfer_rt.commands.sample import sample
from synfer_rt.jobs.card.command import command, filling_in
from synfer_rt.jobs.sample_settings import SampleSettings, make_run
from tests.data.writers.small_run import SmallRun

RUNS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "labels": {"labels": ["sad", "happy"], "quality": "best"},
    "request": {
        "labels": ["happy"],
        "prompt": 'a "photo" of it\'s face; $HOME',
        "negative_prompt": "blur",
        "aus": {"AU12": 0.1, "AU6": 1.0},
        "seed": 9,
    },
    "from noise": {"layout": "none", "solver": "tcd", "steps": 3, "eta": 0.1 + 0.2},
    "timesteps": {"timesteps": [800, 500, 100], "guidance": 3.5, "guidance_interval": (0.1, 7)},
    "no upper limit": {"guidance": 2, "guidance_interval": (0.25, float("inf"))},
    "start face": {"layout": "bank", "layout_strength": 1 / 3, "au_scale": 0.5},
    "quota": {"count_accepted": True, "budget": 900, "accept_rate": 0.75},
    "threshold": {"threshold": 0.5, "semantic_guidance": 0.05, "semantic_every": 2},
}
AUGMENTED: dict[str, Any] = {
    "command": "augment",
    "bundle": "0123",
    "format": "webdataset",
    "count": 12,
    "originals": 5,
    "noise_scale": 8.5,
    "repair_steps": 2,
    "repair_strength": 0.25,
    "quality": "best",
    "attempts": 3,
    "seed": 4,
    "decode_originals": True,
    "dataset": "89ab",
    "balance": "40",
}


def read_by_click(line: str) -> dict[str, Any]:
    """What `sample` understands of a line."""
    program, name, *words = shlex.split(line)
    assert (program, name) == ("synfer-rt", "sample")
    return sample.make_context(name, words).params


@pytest.mark.parametrize("name", RUNS)
def test_the_command_has_the_settings_of_the_run(guided_bundle, name):
    settings = make_run(guided_bundle, count=48, **RUNS[name]).settings("parquet")
    line = command({**settings, "backend": "onnxruntime-cpu", "shard_size": 10_000})
    assert line is not None
    said = read_by_click(line)
    assert (said["format"], said["backend"]) == ("parquet", "onnxruntime-cpu")
    own = {n: said[n] for n in (*SampleSettings.__annotations__, "count")}
    assert make_run(guided_bundle, **own).settings("parquet") == settings


def test_the_command_names_the_images_format():
    lossy = {"image_format": "webp", "image_quality": 80, "image_encoder": "Pillow 13.0.0"}
    for settings in (SmallRun().sample_settings("parquet"), AUGMENTED):
        line = command(settings | lossy)
        assert line is not None and "--image-format webp --image-quality 80" in line
        assert "image" not in str(command(settings))


def test_the_command_of_augment_has_its_settings():
    settings = AUGMENTED
    words = shlex.split(command(settings) or "")
    assert words[:2] == ["synfer-rt", "augment"]
    said = augment.make_context("augment", words[2:]).params
    for name in ("noise_scale", "repair_steps", "repair_strength", "attempts", "seed", "format"):
        assert said[name] == settings[name]
    assert said["decode_originals"] and said["balance"] == 40


ALIGN = {"face": "only", "detector": "0" * 64}
CORESET = {
    **{"coreset_method": "k-center", "coreset_quotas": "equal", "coreset_seed": 0, "count": 4},
    **{"coreset_every": True, "coreset_features": {"of_bundle": False}, "format": "parquet"},
}


@pytest.mark.parametrize(
    "settings",
    [
        AUGMENTED,
        AUGMENTED | {"balance": {"happy": 3}, "align": ALIGN},
        CORESET,
        CORESET | {"coreset_features": {"of_bundle": True}},
    ],
    ids=["augment", "augment by counts", "core-set by a file", "core-set"],
)
def test_words_in_capitals_are_explained(settings):
    line = command(settings)
    words = re.findall(r"\b[A-Z]{2,}\b", line or "")
    said = filling_in(line or "")
    explained = re.findall(r"\b([A-Z]+) by", said)
    assert sorted(explained) == sorted({*words} - {"OUT"})


def test_settings_that_no_option_has_give_no_command(guided_bundle):
    settings = make_run(guided_bundle, count=48).settings("parquet")
    assert command({**settings, "of_a_later_release": 1}) is None
    assert command({**settings, "aus": {}}) is None
