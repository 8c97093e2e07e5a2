"""`synfer-rt bench` on a tiny bundle: what it reports, and what it refuses before it measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result

from synfer_rt.bench import measure, sections
from synfer_rt.bench.cli import bench, parse_batches, parse_settings
from synfer_rt.bench.estimates import visit_seconds
from synfer_rt.bench.measure import RUNS
from synfer_rt.bench.systems import STAGES, Setup
from synfer_rt.commands.cli import main
from synfer_rt.commands.invocation import typed
from synfer_rt.errors import UserError

BATCHES, REPEATS = [1, 3], 2
RUN = {"batches": 1, "total": 1.0, "stages": dict.fromkeys(STAGES, 0.1), "engines": {}, "calls": {}}
RUN |= {"device_seconds": None, "device_clock": None}
VISITS: list[dict[str, Any]] = [
    {
        **{"system": "synfer-rt", "batch": 2, "load_seconds": 1.0, "warm_up_seconds": 1.0},
        **{"ran": {"precision": "fp32", "runtime": "r", "device": "cpu"}, "runs": [RUN]},
        **{"peak_rss_bytes": None, "gpu": None, "notes": []},
        **{"settings": {}, "flops": None},
    }
]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(bench, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def report(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON and the printed text of one benchmark."""
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    result = invoke(
        *("--bundle", tiny_bundle_path, "--batch", "1,3", "--repeats", REPEATS),
        *("--threads", 1, "--backend", "onnxruntime-cpu", "--json", file),
    )
    assert result.exit_code == 0, result.output
    return {**json.loads(file.read_text()), "text": result.output}


def test_the_json_has_machine_settings_and_raw_visits(report: dict[str, Any]):
    assert report["format"] == 3
    assert set(report["machine"]) == {
        *("cpu", "cores", "threads", "ram_bytes", "gpus", "system", "python", "versions", "date")
    }
    assert report["settings"]["solver"] == "dpmpp-2m"
    assert report["settings"]["steps"] == 4
    assert report["settings"]["backend"] == "onnxruntime-cpu"
    assert report["settings"]["threads"] == report["machine"]["threads"] == 1
    ran = report["visits"][0]["ran"]
    assert (ran["backend"], ran["precision"], ran["device"]) == ("onnxruntime-cpu", "fp32", "cpu")
    assert ran["runtime"] == f"onnxruntime {onnxruntime.__version__}"
    assert ran["placement"] == "onnxruntime-cpu"


def test_every_batch_is_visited_in_turn(report: dict[str, Any]):
    visits = report["visits"]
    assert [(v["repeat"], v["batch"]) for v in visits] == [(0, 1), (0, 3), (1, 1), (1, 3)]
    assert [v["order"] for v in visits] == list(range(len(BATCHES) * REPEATS))
    assert [entry["batch"] for entry in report["summary"]] == BATCHES


def test_the_stages_add_up_to_the_whole(report: dict[str, Any]):
    for visit in report["visits"]:
        for run in visit["runs"]:
            assert tuple(run["stages"]) == STAGES
            assert sum(run["stages"].values()) == pytest.approx(run["total"])
            assert min(run["stages"].values()) > 0


def test_engine_calls_lie_within_their_stages(report: dict[str, Any]):
    stages = {
        "conditioner": "condition",
        "denoiser": "denoise",
        "decoder": "decode",
        "classifier.small": "label",
    }
    for visit in report["visits"]:
        for run in visit["runs"]:
            assert set(run["engines"]) == set(stages)
            for engine, seconds in run["engines"].items():
                assert 0 < seconds < run["stages"][stages[engine]]


def test_a_visit_makes_many_batches_in_one_process(report: dict[str, Any]):
    for visit in report["visits"]:
        seconds = sum(run["total"] for run in visit["runs"])
        assert len(visit["runs"]) == RUNS or seconds >= 1
        assert len({run["batches"] for run in visit["runs"]}) == 1
        assert all(run["device_seconds"] is None for run in visit["runs"])
    assert max(run["batches"] for visit in report["visits"] for run in visit["runs"]) > 1


def test_what_is_achieved_is_held_against_a_peak(report: dict[str, Any]):
    assert set(report["flops"]) == {"conditioner", "denoiser", "decoder", "classifier.small"}
    flops, steps = report["flops"], report["settings"]["steps"]
    for entry in report["summary"]:
        # Equal rows of a batch, here the unconditional ones, are conditioned once, two in a pair.
        pairs = (entry["batch"] // 2 + 1) / entry["batch"]
        model = pairs * flops["conditioner"] + steps * flops["denoiser"] + flops["decoder"]
        speed = entry["model_images_per_second"]["median"]
        assert entry["flops_per_second"] == pytest.approx(speed * model)
    assert report["peak"]["dtype"] == "float32"


def test_warm_up_is_apart(report: dict[str, Any]):
    assert report["settings"]["warm_up_steps"] == 2
    assert all(visit["warm_up_seconds"] > 0 < visit["load_seconds"] for visit in report["visits"])


def test_the_table_shows_each_batch(report: dict[str, Any]):
    lines = [line.split() for line in report["text"].splitlines()]
    shown = [line[1] for line in lines if line[:1] == ["synfer-rt"] and line[1] != "ran"]
    assert shown == ["1", "3", "1", "3"]  # speeds, then stages


def test_a_piped_report_cuts_no_column(tiny_bundle_path: Path):
    command = [sys.executable, "-m", "synfer_rt", "bench", "--bundle", str(tiny_bundle_path)]
    command += ["--batch", "1", "--steps", "1", "--repeats", "1", "--threads", "1"]
    command += ["--backend", "onnxruntime-cpu"]
    environment = os.environ | {"COLUMNS": "40"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    heads = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["system"]]
    assert heads == [
        ["system", "batch", "images/s", "model", "only", "RAM", "TFLOP/s", "of", "peak"],
        ["system", "batch", *STAGES, "engines"],
    ]
    assert "…" not in done.stdout


def test_a_second_backend_is_compared_with_the_first(tmp_path: Path, tiny_bundle_path: Path):
    pytest.importorskip("openvino", reason="needs a second backend (synfer-rt[openvino])")
    file = tmp_path / "bench.json"
    result = invoke(
        *("--bundle", tiny_bundle_path, "--batch", 2, "--steps", 2, "--repeats", 1),
        *("--threads", 1, "--backend", "onnxruntime-cpu,openvino-cpu", "--json", file),
    )
    assert result.exit_code == 0, result.output
    report = json.loads(file.read_text())
    assert [entry["system"] for entry in report["summary"]] == ["synfer-rt", "openvino-cpu"]
    assert [entry["peer"] for entry in report["speedups"]] == ["openvino-cpu"]
    assert report["differences"][0]["mean"] < 1


def test_a_quick_benchmark_leaves_a_page_and_its_numbers(
    tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    result = invoke(
        *("--quick", "--bundle", tiny_bundle_path, "--batch", 2, "--repeats", 1, "--threads", 1),
        *("--backend", "onnxruntime-cpu"),
    )
    assert result.exit_code == 0, result.output
    page = (tmp_path / "synfer-rt-bench.md").read_text()
    report = json.loads((tmp_path / "synfer-rt-bench.json").read_text())
    assert "Written by `synfer-rt bench --quick --batch 2" in page
    assert "| " in page and report["settings"]["seconds"] == 270
    # The tiny bundle has no checkpoint for diffusers.
    (left_out,) = report["left_out"]
    assert left_out["section"] == "diffusers" and f"{left_out['section']}: " in page


def test_a_section_that_fails_is_told_and_makes_the_exit_code_1(
    tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def failing(setup: Setup, cases: Any, repeats: int, *_: Any) -> measure.Measured:
        visited = [(visit, np.zeros((1, 2, 2, 3), np.uint8)) for visit in VISITS]
        found = measure.Measured(failed=[{"section": "diffusers, batch 2", "why": "no memory"}])
        measure._keep(found, measure._Part(0, cases[0]), sections.Outcome(visited))
        return found

    monkeypatch.setattr(measure, "measure", failing)
    result = invoke("--bundle", tiny_bundle_path, "--batch", 2, "--backend", "onnxruntime-cpu")
    assert result.exit_code == 1
    assert "FAILED: diffusers, batch 2: no memory." in result.output


@pytest.mark.parametrize("text", ["", "0", "1,,8", "-1", "8,x", "1.5"])
def test_a_bad_list_of_batches_is_refused(text: str):
    with pytest.raises(UserError, match="must be whole numbers of at least 1"):
        parse_batches(text)


def test_the_command_is_told_without_paths(tmp_path: Path):
    given = ["--batch", "4", "--compare", f"synfer-rt={tmp_path}/bin/python,diffusers"]
    with bench.make_context("bench", [*given, "--json", str(tmp_path / "a.json")]):
        told = typed("synfer-rt bench")
    assert told == "synfer-rt bench --batch 4 --compare synfer-rt=PYTHON,diffusers"


def test_the_command_ends_with_code_2_and_one_sentence():
    result = CliRunner().invoke(main, ["bench", "--batch", "8,x"])
    assert result.exit_code == 2
    assert result.output.startswith("Error: --batch must be whole numbers of at least 1")
    assert result.output.count("\n") == 1


def test_a_random_checkpoint_takes_no_directory_that_is_there(tmp_path: Path):
    pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
    from synfer_rt.bench.random_checkpoint import main as make

    result = CliRunner().invoke(make, [str(tmp_path)])
    assert result.exit_code == 2 and "name a directory that is not there" in result.output


def test_a_thin_checkpoint_has_the_layers_of_stable_diffusion(tmp_path: Path):
    pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
    from safetensors import safe_open

    from synfer_rt.bench.random_checkpoint import main as make

    result = CliRunner().invoke(make, [str(tmp_path / "thin"), "--thin"])
    assert result.exit_code == 0, result.output
    unet, text_encoder, adapter = (
        tmp_path / "thin" / name
        for name in (
            "unet/diffusion_pytorch_model.safetensors",
            "text_encoder/model.safetensors",
            "au_adapter.safetensors",
        )
    )
    # the tensors of the published files of Stable Diffusion 1.5; a projection and 16 attentions
    for file, tensors in ((unet, 686), (text_encoder, 196), (adapter, 2 + 2 * 16)):
        with safe_open(file, "np") as weights:
            names = weights.keys()
        assert len(names) == tensors
        published = file != text_encoder or all(name.startswith("text_model.") for name in names)
        assert published


def test_settings_are_read_as_numbers_pairs_and_words():
    assert parse_settings("steps=4, guidance=1.5,guidance-interval=0.2:5,solver=ddim") == {
        **{"steps": 4, "guidance": 1.5, "guidance_interval": (0.2, 5), "solver": "ddim"}
    }


@pytest.mark.parametrize("text", ["steps", "=4", "steps=", "4"])
def test_settings_without_name_or_value_are_refused(text: str):
    with pytest.raises(UserError, match="must be settings with values, such as steps=4"):
        parse_settings(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compare", "diffusers,optimum-intell"), "the nearest is optimum-intel"),
        (("--compare", "optimum-intel"), "add `--set-up`"),
        (("--variant", "stepps=4"), "which are not all settings of `sample`"),
        (("--variant", "steps=0"), "steps` must be a whole number from 1 to"),
        (("--quality", "fastt"), "quality"),
        (("--resume",), "`resume` goes on with the file `json`"),
        (("--size", "64"), "such as 512x512, got '64'"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_once(
    tiny_bundle_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = invoke("--bundle", tiny_bundle_path, "--backend", "onnxruntime-cpu", *arguments)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_an_estimate_has_a_line_for_each_visit_and_measures_none(
    tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(measure, "measure", None)
    result = invoke(
        *("--bundle", tiny_bundle_path, "--backend", "onnxruntime-cpu", "--batch", "1,8"),
        *("--variant", "steps=8", "--estimate", "--repeats", 2),
    )
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if "GFLOP an image" in line]
    assert [line.partition(":")[0] for line in lines] == [
        *("synfer-rt, batch 1", "synfer-rt steps=8, batch 1"),
        *("synfer-rt, batch 8", "synfer-rt steps=8, batch 8"),
    ]
    assert all(": 2 x " in line for line in lines)
    assert "All visits: about" in result.output


def test_a_visit_is_its_work_over_the_speed():
    assert visit_seconds(1e12, (2,), 4, 1e12) == pytest.approx(2 * 1.5)  # two of four steps warm up
    assert visit_seconds(1e9, (1,), 1, 1e12) == pytest.approx(0.002 + measure.ON_CPU)


def test_a_batch_given_twice_is_measured_once():
    assert parse_batches("8, 1,8") == [8, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--repeats", "0"), "`repeats` must be at least 1, got 0"),
        (("--threads", "0"), "`threads` must be from 1 to 1024, got 0"),
        (("--threads", "99999999999"), "`threads` must be from 1 to 1024"),
        (("--solver", "dmpp-2m"), "the nearest is dpmpp-2m"),
        (("--steps", "0"), "steps` must be a whole number from 1 to"),
        (("--backend", "cuda"), "Unknown backend"),
        (("--json", "/no/such/directory/bench.json"), "cannot be written"),
        (("--json", "x" * 300), "cannot be written"),
        (("--compare", "diffusers", "--checkpoint", "/no/such/directory"), "`checkpoint`"),
        (("--checkpoint", "."), 'add `compare="diffusers"`'),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    tiny_bundle_path: Path, arguments: tuple[str, ...], message: str
):
    result = invoke("--bundle", tiny_bundle_path, *arguments)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert "visit" not in result.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_file_that_cannot_be_written_does_not_cost_the_results(tiny_bundle_path: Path):
    options = ("--batch", "1", "--steps", "1", "--repeats", "1", "--threads", "1")
    result = invoke("--bundle", tiny_bundle_path, *options, "--json", "/dev/full")
    assert isinstance(result.exception, UserError)
    assert "images/s" in result.output
