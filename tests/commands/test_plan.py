"""`synfer-rt sample --plan` and `synfer-rt plan`, as their users meet them."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from synfer_rt.api import Model
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.commands.cli import main
from synfer_rt.data.writers import FORMATS, read, run_file
from tests import tiny_bundle as tiny
from tests.commands.test_cli import refused

PLAN = {
    "classes": {"counts": {"happy": 9, "sad": 4, "fear": 1}},
    "prompt": "a photo of a {age} {sex} with a {expression} face",
    "attributes": {"sex": {"female": 1, "male": 1}},
    "aus": {"happy": {"AU12": [0.5, 1]}, "sad": {"csv": "aus.csv"}},
    "seed": 4,
    "steps": 2,
}
ROWS = "frame,AU01_r,AU15_r\n1,0.5,2.5\n2,5,1\n"


def files(out: Path) -> dict[str, bytes]:
    """Every file of an output by its relative path."""
    found = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


def settings(out: Path) -> dict[str, Any]:
    return run_file.load(out)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "aus.csv").write_text(ROWS)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(PLAN))
    return path


@pytest.fixture
def again(sample, tmp_path: Path):
    """Makes the run in `out` again, from its run.json alone, into `again`."""

    def invoke(*options: str, **places: Path) -> Result:
        run_json = run_file.path(tmp_path / "out")
        return sample("--plan", str(run_json), *options, out=tmp_path / "again", **places)

    return invoke


def test_a_plan_is_made(sample, tmp_path: Path, plan: Path):
    result = sample("--plan", str(plan))
    assert result.exit_code == 0, result.output
    records = [record for record, _ in read(tmp_path / "out")]
    labels = Counter(record["requested_label"] for record in records)
    assert labels == PLAN["classes"]["counts"]
    sad = [record["aus"] for record in records if record["requested_label"] == "sad"]
    assert {(aus["AU1"], aus["AU15"]) for aus in sad} <= {(0.1, 0.5), (1.0, 0.2)}
    assert "happy" in result.output and "14 images" in result.output


@pytest.mark.parametrize("format", FORMATS)
def test_a_planned_run_is_made_again_from_its_run_json(
    sample, again, tmp_path: Path, plan: Path, format: str
):
    plan.write_text(json.dumps({**PLAN, "format": format, "shard_size": 5}))
    assert sample("--plan", str(plan), "--batch", "14").exit_code == 0
    plan.unlink()
    (tmp_path / "aus.csv").unlink()
    result = again("--batch", "3")
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "again") == files(tmp_path / "out")
    assert settings(tmp_path / "again") == settings(tmp_path / "out")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "options",
    [
        "--steps 2",
        "--labels sad,happy --steps 3 --solver unipc --guidance 1.5 --au-scale 0.7 --layout none",
        "--prompt a{b --labels sad --au AU12=0.5 --negative-prompt x --guidance-interval 0.2: "
        "--steps 3",
        "--timesteps 900,500,100 --layout-strength 0.95 --seed 9 --solver tcd --eta 0.2",
    ],
)
def test_a_run_of_options_is_made_again_from_its_run_json(
    sample, again, tmp_path: Path, format: str, options: str
):
    result = sample("--count", "5", "--format", format, *options.split())
    assert result.exit_code == 0, result.output
    result = again()
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "again") == files(tmp_path / "out")
    assert settings(tmp_path / "again") == settings(tmp_path / "out")


def test_a_run_until_enough_is_accepted_is_made_again(
    voting_bundle: Bundle, sample, again, tmp_path: Path
):
    bundle = voting_bundle.path
    options = ["--count", "2", "--count-accepted", "--budget", "12", "--labels", "sad,fear"]
    assert sample(*options, "--accept-rate", "0.5", engines=bundle).exit_code == 0
    assert again(engines=bundle).exit_code == 0
    assert files(tmp_path / "again") == files(tmp_path / "out")
    assert settings(tmp_path / "again") == settings(tmp_path / "out")


@pytest.mark.parametrize("options", [[], ["--guidance", "3"], ["--quality", "best"]])
def test_a_run_is_made_again_at_its_quality(
    student_bundle: Bundle, sample, again, tmp_path: Path, options: list[str]
):
    bundle = student_bundle.path
    assert sample("--count", "2", *options, engines=bundle).exit_code == 0
    result = again(engines=bundle)
    assert result.exit_code == 0, result.output
    assert settings(tmp_path / "again") == settings(tmp_path / "out")
    assert files(tmp_path / "again") == files(tmp_path / "out")


def test_a_run_from_photos_needs_the_same_photos(
    sample, again, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    photos = tmp_path_factory.mktemp("photos")
    for name, grey in (("a.png", 90), ("b.png", 160)):
        Image.new("RGB", (32, 32), (grey, grey, 120)).save(photos / name)
    options = ["--count", "2", "--labels", "sad,fear", "--steps", "2"]
    assert sample(*options, "--layout-from", str(photos)).exit_code == 0
    assert "photos, which it knows by their content alone" in refused(again())
    assert again("--layout-from", str(photos)).exit_code == 0
    assert files(tmp_path / "again") == files(tmp_path / "out")
    shutil.rmtree(tmp_path / "again")
    (photos / "b.png").unlink()
    said = refused(again("--layout-from", str(photos)))
    assert "was made from other photos; name those with --layout-from" in said
    assert not (tmp_path / "again").exists()


def test_another_bundle_is_refused_before_anything_is_written(sample, again, tmp_path: Path):
    assert sample("--count", "2").exit_code == 0
    other = tiny.build(tmp_path / "other", with_classifier=False).path
    said = refused(again(engines=other))
    assert "was made by another bundle" in said and "name that one with --bundle" in said
    assert not (tmp_path / "again").exists() and not (tmp_path / "__again__").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"au_vocabulary": ["AU1"]}, "'au_vocabulary' does not fit the other settings"),
        ({"steps": 0}, "'steps' must be a whole number from 1"),
        ({"labels": None}, "'labels' does not fit"),
        ({"layout": "none", "layout_strength": 0.5}, "'layout_strength' does not fit"),
        ({"something": 1}, "'something' does not fit"),
        ({"semantic_guidance": 3}, "is damaged"),
        ({"size": 3}, "is damaged"),
        ({"dataset": {}}, "is of a run of `augment`"),
        ({"class_counts": {}}, "is damaged"),
    ],
)
def test_a_run_json_that_was_changed_is_refused(
    sample, again, tmp_path: Path, changes: dict[str, Any], said: str
):
    assert sample("--count", "1").exit_code == 0
    path = run_file.path(tmp_path / "out")
    path.write_text(json.dumps({**settings(tmp_path / "out"), **changes}))
    assert said in refused(again())


def test_options_beside_a_plan_are_refused(sample, tmp_path: Path, plan: Path):
    said = refused(sample("--plan", str(plan), "--seed", "0"))
    assert "--plan says all that decides the images; leave out --seed, or change the plan" in said
    said = refused(sample("--plan", str(plan), "--layout-from", str(tmp_path)))
    assert "--layout-from beside --plan is for a plan that is a run.json" in said
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_in_a_plan_is_said_before_anything_is_written(
    sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    loaded: list[str] = []
    monkeypatch.setattr(
        "synfer_rt.backends.loaded_engines.LoadedEngines.load",
        lambda self, names, rows: loaded.append("engine"),
    )
    path = tmp_path / "plan.yaml"
    path.write_text("count: 3\nsteps: 0\n")
    said = refused(sample("--plan", str(path)))
    assert f"{path}, line 2: 'steps' must be a whole number from 1 to 900" in said
    assert not loaded and not (tmp_path / "out").exists()


def test_an_interrupted_plan_goes_on(
    sample, tmp_path: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
):
    assert sample("--plan", str(plan)).exit_code == 0
    whole = files(tmp_path / "out")
    for image in list((tmp_path / "out" / "happy").glob("*.png"))[3:6]:
        image.unlink()
    result = sample("--plan", str(plan), "--resume")
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "out") == whole
    plan.write_text(json.dumps({**PLAN, "aus": {"happy": {"AU12": [0.4, 1]}}}))
    assert "was begun with another au distributions" in refused(
        sample("--plan", str(plan), "--resume")
    )


def test_splits_are_runs_of_their_own(sample, again, tmp_path: Path, plan: Path):
    plan.write_text(json.dumps({**PLAN, "splits": {"train": 3, "validation": 1}}))
    result = sample("--plan", str(plan))
    assert result.exit_code == 0, result.output
    layouts, seeds, labels = [], [], Counter()
    for name in ("train", "validation"):
        records = [record for record, _ in read(tmp_path / "out" / name)]
        layouts.append({record["layout"] for record in records})
        seeds.append({record["seed"] for record in records})
        labels.update(record["requested_label"] for record in records)
    assert not layouts[0] & layouts[1] and not seeds[0] & seeds[1]
    assert labels == PLAN["classes"]["counts"]
    run_json = run_file.path(tmp_path / "out" / "validation")
    assert sample("--plan", str(run_json), out=tmp_path / "again").exit_code == 0
    assert files(tmp_path / "again") == files(tmp_path / "out" / "validation")


def test_a_run_is_made_again_on_its_backend(
    tiny_bundle_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    model = Model(open_bundle(tiny_bundle_path), "onnxruntime-cpu", 1)
    model.write(tmp_path / "out", count=1, steps=2)
    run_json = run_file.path(tmp_path / "out")
    automatic = Model(model.bundle, "auto", 1)
    automatic.write_plan(run_json, tmp_path / "again")
    assert settings(tmp_path / "again")["backend"] == "onnxruntime-cpu"
    changed = {**settings(tmp_path / "out"), "runtime": "onnxruntime 0.1"}
    run_json.write_text(json.dumps(changed))
    with caplog.at_level(logging.WARNING):
        automatic.write_plan(run_json, tmp_path / "third")
    assert "come out slightly different" in caplog.text


def test_the_place_of_the_output_may_be_in_the_plan(tiny_bundle: Bundle, tmp_path: Path):
    plan = tmp_path / "plan.toml"
    plan.write_text('count = 1\nsteps = 1\nout = "faces"\n')
    (written,) = Model(tiny_bundle, "onnxruntime-cpu", 1).write_plan(plan)
    assert written.path == tmp_path / "faces" and written.count == 1


def test_plan_prints_counts_time_and_disk_and_leaves_nothing(
    tiny_bundle_path: Path, tmp_path: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    plan.write_text(json.dumps({**PLAN, "splits": {"train": 3, "val": 1}}))
    words = ["plan", str(plan), "--bundle", str(tiny_bundle_path), "--threads", "1"]
    result = CliRunner().invoke(main, [*words, "--backend", "onnxruntime-cpu"])
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines() if line.strip()]
    assert ["class", "train", "val", "all", "share"] in rows
    assert ["happy", "7", "2", "9", "64.3%"] in rows and ["sad", "3", "1", "4", "28.6%"] in rows
    assert ["sex", "train", "val", "all", "share"] in rows
    (sexes,) = [row for row in rows if row[0] == "female"]
    assert 0 < int(sexes[3]) < 14
    assert "14 images: about" in result.output and "an estimate from" in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"scratch", "plan.json", "aus.csv"}
    assert not list(scratch.iterdir())


def test_words_are_printed_as_they_are(tiny_bundle_path: Path, tmp_path: Path):
    words = ["[b]hat", "[/x]", ":smile:", ""]
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"prompt": "a {label}, {hat}", "attributes": {"hat": words}}))
    options = ["--no-measure", "--bundle", str(tiny_bundle_path)]
    result = CliRunner().invoke(main, ["plan", str(plan), *options])
    assert result.exit_code == 0, result.output
    rows = [line.split()[0] for line in result.output.splitlines() if line.strip()]
    assert rows[rows.index("hat") + 1 :][:4] == ["[b]hat", "[/x]", ":smile:", "(nothing)"]


def test_a_preview_counts_what_is_made(tiny_bundle: Bundle, tmp_path: Path, plan: Path):
    model = Model(tiny_bundle, "onnxruntime-cpu", 1)
    found = model.preview(plan, measure=False)
    assert found.measured is None and found.seconds is None
    (written,) = model.write_plan(plan, tmp_path / "out")
    prompts = [record["prompt"] for record, _ in read(Path(written.path))]
    for sex, number in found.attributes["sex"][""].items():
        assert sum(f" {sex} " in prompt for prompt in prompts) == number
    measured = model.preview(plan, batch=4).measured
    assert measured is not None and measured.images == 8 and measured.bytes_per_image > 100


def test_plan_says_that_it_counts_accepted_images(voting_bundle: Bundle, tmp_path: Path):
    plan = tmp_path / "plan.toml"
    plan.write_text('count = 3\nlabels = ["sad", "fear"]\ncount_accepted = true\nbudget = 50\n')
    options = ["--no-measure", "--bundle", str(voting_bundle.path)]
    result = CliRunner().invoke(main, ["plan", str(plan), *options])
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()]
    assert rows[0] == ["class", "(accepted", "images)", "images", "share"]
    assert ["fear", "3", "50.0%"] in rows and "at most 50 images" in result.output


def test_a_run_json_can_be_previewed(sample, tmp_path: Path, tiny_bundle: Bundle):
    assert sample("--count", "3", "--labels", "sad,happy").exit_code == 0
    run_json = run_file.path(tmp_path / "out")
    found = Model(tiny_bundle, "auto", 1).preview(run_json, measure=False)
    assert found.classes == {"": {"sad": 2, "happy": 1}} and found.count == 3


@pytest.mark.parametrize("format", FORMATS)
def test_a_plan_is_made_in_parts(sample, tmp_path: Path, plan: Path, format: str):
    plan.write_text(json.dumps({**PLAN, "format": format, "shard_size": 4}))
    assert sample("--plan", str(plan)).exit_code == 0
    for part in ("1/2", "0/2"):
        result = sample("--plan", str(plan), "--part", part, out=tmp_path / "parts")
        assert result.exit_code == 0, result.output
    assert files(tmp_path / "parts") == files(tmp_path / "out")
