"""The page's commands make the same images again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from synfer_rt import write_report
from synfer_rt.bench.host_side import InstantEngines
from synfer_rt.commands.cli import main
from synfer_rt.data.writers import open_output, run_file
from synfer_rt.jobs.plan.reading import read_plan
from synfer_rt.jobs.sample import execute
from synfer_rt.report.commands_again import FILE, INDEX, SHARD, again
from synfer_rt.report.sources import source
from tests.report.conftest import write
from tests.report.pages import opened


def again_of(location: Path) -> Any:
    with source(location) as one:
        return again(one)


def invoked(line: str, bundle: Path, out: Path) -> None:
    words = {"BUNDLE": str(bundle), "OUT": str(out)}
    name, *arguments = [words.get(word, word) for word in shlex.split(line)]
    assert name == "synfer-rt"
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_the_command_of_an_image_makes_this_image_alone(tiny_bundle_path: Path, tmp_path: Path):
    settings = shlex.split("--backend onnxruntime-cpu --threads 1 --count 6 --seed 3 --steps 2")
    places = ["--bundle", str(tiny_bundle_path), "--out", str(tmp_path / "whole")]
    whole = ["sample", *settings, *places]
    assert CliRunner().invoke(main, whole).exit_code == 0
    write_report(tmp_path / "whole", page=tmp_path / "page.html")
    page = opened(tmp_path / "page.html")
    made = page.manifest["runs"][0]["again"]
    assert made["of"] == INDEX
    invoked(f"{made['one'][0]}4{made['one'][1]}", tiny_bundle_path, tmp_path / "alone")
    (image,) = (tmp_path / "alone").glob("*/*.png")
    assert image.name == "00000004.png" and image.read_bytes() == page.files("files")[4]
    invoked(made["whole"], tiny_bundle_path, tmp_path / "all")
    name = image.relative_to(tmp_path / "alone")
    assert (tmp_path / "all" / name).read_bytes() == image.read_bytes()


def test_of_a_plan_the_shard_is_made_that_holds_the_image(instant: InstantEngines, tmp_path: Path):
    plan = tmp_path / "plan.json"
    plan.write_text('{"count": 8, "attributes": {"age": {"elderly": 1}}}')
    read = read_plan(plan, instant.bundle, None)
    (run,) = read.runs(instant.bundle).values()
    out = tmp_path / "planned"
    settings = run.settings("webdataset")
    execute(run, instant, open_output(out, settings, resume=False, shard_size=3), 8)
    made = again_of(out)
    assert (made.of, made.per_shard) == (SHARD, 3)
    assert made.one[0].startswith("synfer-rt sample --bundle BUNDLE --plan RUN_JSON --part ")
    assert made.one[1] == "/3 --out OUT"


def test_with_a_quota_all_images_are_made(instant: InstantEngines, tmp_path: Path):
    out = write(instant, tmp_path / "quota", count=1, count_accepted=True, budget=16)
    made = again_of(out)
    assert made.one is None and "--count 1 --count-accepted --budget 16" in made.whole


def test_a_table_labels_the_file_again(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "t.jsonl").write_text('{"index": 0, "file_name": "a.png", "label": "sad"}\n')
    (tmp_path / "t.jsonl.run.json").write_text('{"folder": "photos", "accept_rate": 0.5}')
    made = again_of(tmp_path / "t.jsonl")
    assert (made.of, made.folder) == (FILE, "photos")
    assert made.whole.startswith("synfer-rt label photos --bundle BUNDLE --accept-rate 0.5 --out ")


def test_a_calibrated_table_of_aligned_faces_is_so_again(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text('{"index": 0, "file_name": "a.png", "label": "sad"}\n')
    settings = {"folder": "photos", "calibration": {"coverage": 0.8}, "align": {"face": "only"}}
    settings["align"]["detector"] = "0" * 64
    (tmp_path / "t.jsonl.run.json").write_text(json.dumps(settings))
    made = again_of(tmp_path / "t.jsonl")
    options = (
        "--calibration CALIBRATION --coverage 0.8 --align --face only --face-detector DETECTOR"
    )
    assert made.one is not None and made.one[1].startswith(f" --bundle BUNDLE {options} --out ")
    assert "CALIBRATION by the calibration's file, DETECTOR by the file" in made.remark


def test_the_shards_of_a_run_are_counted_by_its_settings(instant: InstantEngines, tmp_path: Path):
    out = write(instant, tmp_path / "faces", "webdataset", count=8)
    assert again_of(out).one[1] == f"/{run_file.count(run_file.load(out))} --out OUT"


@pytest.mark.parametrize("prompt", ["it's {index} faces", "$HOME `date`"])
def test_a_prompt_is_quoted_for_the_shell(instant: InstantEngines, tmp_path: Path, prompt: str):
    out = write(instant, tmp_path / "faces", count=2, prompt=prompt)
    first, last = again_of(out).one
    words = shlex.split(f"{first}1{last}")
    assert words[words.index("--prompt") + 1] == prompt
