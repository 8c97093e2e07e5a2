"""`synfer-rt sample`, as its users meet it."""

from __future__ import annotations

import json
import shutil

import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper, parser
from PIL import Image

from synfer_rt.bundle import write_manifest
from synfer_rt.commands.cli import main
from synfer_rt.data.writers import FORMATS, read, run_file
from synfer_rt.diffusion.solvers import SOLVERS
from synfer_rt.vocabulary.facs import au_intensities
from tests import tiny_bundle as tiny
from tests.commands.test_cli import refused
from tests.contact_sheets import picture_of


@pytest.mark.parametrize("format", FORMATS)
def test_sample_writes_a_whole_dataset(sample, tmp_path, format):
    result = sample("--count", "20", "--batch", "8", "--format", format)
    assert result.exit_code == 0, result.output
    records = [record for record, _ in read(tmp_path / "out")]
    assert [record["index"] for record in records] == list(range(20))
    expected = (
        "file_name index seed requested_label label label_scheme probabilities rectified accepted "
        "prompt negative_prompt aus guidance guidance_interval au_scale quality solver steps "
        "timesteps eta cache_every "
        "bundle layout layout_strength semantic_guidance origin source source_sha256 noise_scale "
        "attempt backend"
    )
    assert set(expected.split()) == set(records[0])
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert not list((tmp_path / "__out__").rglob("*.partial"))


def test_what_the_model_does_not_read_of_a_prompt_is_said(tmp_path):
    arguments = ["sample", "--count", "1", "--labels", "sad", "--out", str(tmp_path / "out")]
    arguments += ["--threads", "1", "--backend", "onnxruntime-cpu", "--prompt"]
    known = CliRunner().invoke(main, [*arguments, "a photo of an elderly woman"])
    assert known.exit_code == 0 and "Warning" not in known.output
    shutil.rmtree(tmp_path / "out")
    prompt = "a zebra with a sad face" + ", dark background" * 40 + ", an elderly woman"
    said = CliRunner().invoke(main, [*arguments, prompt]).output
    assert "does not know these words of --prompt: zebra\n" in said
    assert "its end is not read: 'dark background" in said and "elderly woman'" in said


def test_sample_ends_with_a_summary_and_a_contact_sheet(sample, tmp_path):
    result = sample("--count", "16", "--labels", "happy,sad")
    for said in ("happy", "sad", "accepted", "images/s", "contact-sheet.html"):
        assert said in result.output
    with Image.open(picture_of(tmp_path / "__out__/contact-sheet.html")) as sheet:
        assert sheet.width > 8 * 96 and sheet.height > 2 * 96


def test_options_left_out_are_the_bundles_defaults(sample, tmp_path):
    sample("--count", "1")
    settings = json.loads((tmp_path / "__out__/run.json").read_text())
    defaults = tiny.manifest({})["defaults"]
    for name in ("solver", "steps", "guidance", "au_scale", "layout", "layout_strength"):
        assert settings[name] == defaults[name]


def test_what_ran_each_engine_is_in_the_settings_and_in_the_last_line(sample, tmp_path):
    result = sample("--count", "2")
    assert "ran on onnxruntime-cpu\n" in result.output
    ran = json.loads((tmp_path / "__out__/run.json").read_text())["ran_on"]
    assert {"conditioner", "denoiser", "decoder"} < set(ran)
    assert ran["decoder"] == {"backend": "onnxruntime-cpu", "file": "decoder.onnx"}


def test_options_given_are_recorded(sample, tmp_path):
    result = sample(
        *("--count", "2", "--labels", "sad", "--prompt", "a photo of a man"),
        *("--negative-prompt", "beard", "--au", "AU12=0.8", "--au", "AU6=0.5", "--steps", "3"),
        *("--solver", "unipc", "--guidance", "1.5", "--au-scale", "0.7", "--layout", "none"),
        *("--seed", "9"),
    )
    assert result.exit_code == 0, result.output
    (record, _), _ = read(tmp_path / "out")
    au_names = tuple(record["aus"])
    assert len(au_names) == 41
    wanted = {
        "requested_label": "sad",
        "prompt": "a photo of a man",
        "negative_prompt": "beard",
        "aus": au_intensities({"AU12": 0.8, "AU6": 0.5}, au_names),
        "steps": 3,
        "solver": "unipc",
        "guidance": 1.5,
        "au_scale": 0.7,
        "layout": -1,
        "layout_strength": 1.0,
        "seed": 9,
    }
    assert {name: record[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--labels", "hapy"], "happy"),
        (["--au", "AU121=0.5"], "AU12 "),
        (["--au", "AU12=1.5"], "AU12 must be from 0 to 1, got 1.5"),
        (["--solver", "unipcc"], "unipc"),
        (["--backend", "onnxruntime-cpuu"], "onnxruntime-cpu"),
        (["--shard-size", "0"], "--shard-size must be at least 1, got 0"),
        (["--count", "0"], "--count must be at least 1, got 0"),
        (["--batch", "0"], "--batch must be at least 1, got 0"),
        (["--threads", "0"], "--threads must be from 1 to 1024, got 0"),
        (["--steps", "0"], "--steps must be a whole number from 1 to"),
        (["--steps", "5000"], "got 5000"),
        (["--guidance", "nan"], "guidance"),
        (["--au-scale", "inf"], "--au-scale must be from -1000 to 1000, got inf"),
        (["--seed", "-1"], "seed"),
        (["--layout-strength", "1.5"], "--layout-strength must be above 0 and at most 1, got 1.5"),
        (["--layout-strength", "0.0001"], "must be at least 0.001, one timestep of this model"),
        (["--threads", "99999999999"], "--threads must be from 1 to 1024, got 99999999999"),
        (["--guidance", "1e308"], "--guidance must be from 0 to 1000"),
        (["--guidance", "-1"], "--guidance must be from 0 to 1000"),
        (["--labels", "happy,happy"], "contains happy twice"),
        (["--au-scale", "-1e39"], "--au-scale must be from -1000 to 1000"),
        (["--au", "AU12="], "AU12 must be a number from 0 to 1"),
        (["--au", "AU12=high"], "AU12 must be a number from 0 to 1, got 'high'"),
        (["--au", "AU12=nan"], "AU12 must be from 0 to 1, got nan"),
        (["--au", "smile"], "Unknown action unit 'SMILE'; the nearest of this model is"),
        (["--au", "=1"], "Error: --au must be an action unit such as AU12=0.8, got '=1'"),
        (["--au", "AU12=0.8", "--au", "12=0.5"], "Error: --au contains AU12 twice"),
        (["--labels", "happy,happiness"], "Error: --labels contains happy twice"),
        (["--labels", "happy,suprise"], "'suprise'; the nearest of this model is surprise"),
        (["--labels", "happy,all"], "Unknown label 'all'"),
        (["--labels", ","], "Error: --labels is empty; write --labels all, or some of neutral"),
        (
            ["--labels", "sad,happy", "--prompt", "a face", "--au", "AU12"],
            "With --prompt and --au the images of all labels are alike; name the one that they "
            "show, such as --labels sad.",
        ),
        (["--layout", "none", "--layout-strength", "0.5"], "--layout bank"),
        (["--guidance-interval", "5:0.3"], "--guidance-interval must go from a noise level of 0"),
        (["--guidance-interval", "-1:2"], "of 0 or more to a higher one, got -1:2"),
        (["--guidance-interval", "5"], "two noise levels such as 0.3:5, got '5'"),
        (["--guidance-interval", ":"], "two noise levels such as 0.3:5, got ':'"),
        (["--guidance-interval", "low:5"], "two noise levels such as 0.3:5, got 'low:5'"),
        (["--guidance-interval", "900:1e4"], "holds none of the steps, whose noise levels are"),
        (
            ["--guidance-interval", "0.3:5", "--guidance", "1"],
            "--guidance-interval needs guidance, and a scale of 1 is none; raise --guidance, or "
            "leave out --guidance-interval.",
        ),
    ],
)
def test_bad_options_are_one_sentence_and_nothing_is_written(sample, tmp_path, options, said):
    assert said in refused(sample(*options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--count", "many"], ["--format", "zip"], ["--layot", "bank"]])
def test_a_misused_option_exits_with_2(sample, tmp_path, options):
    assert sample(*options).exit_code == 2
    assert not (tmp_path / "out").exists()


def test_aus_for_a_model_without_them_are_refused(sample, tmp_path):
    bundle = tiny.build(tmp_path / "bundle", with_aus=False)
    said = refused(sample("--au", "AU12", engines=bundle.path))
    assert "without action units; leave out --au, or choose another --bundle." in said


def test_semantic_guidance_is_part_of_the_run(sample, guided_bundle, tmp_path):
    options = ("--count", "4", "--semantic-guidance", "0.5")
    result = sample(*options, "--semantic-start", "0.5", engines=guided_bundle.path)
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "__out__/run.json").read_text())
    assert settings["semantic_guidance"] == {
        "form": "latent",
        "strength": 0.5,
        "start": 0.5,
        "every": 1,
    }
    plain = sample("--count", "4", engines=guided_bundle.path, out=tmp_path / "plain")
    assert plain.exit_code == 0
    guided, unguided = (list(read(tmp_path / out)) for out in ("out", "plain"))
    assert all(a != b for (_, a), (_, b) in zip(guided, unguided, strict=True))
    said = refused(sample(*options, "--resume", engines=guided_bundle.path))
    assert "another semantic guidance" in said


def test_semantic_guidance_needs_its_engine(sample, tmp_path):
    assert "has no engine guide.latent" in refused(sample("--semantic-guidance", "0.5"))
    assert not (tmp_path / "out").exists()


def test_a_quota_of_accepted_images_ends_early(sample, tmp_path):
    options = ("--count", "3", "--count-accepted", "--threshold", "0", "--labels", "sad,fear")
    result = sample(*options)
    assert result.exit_code == 0, result.output
    assert "holds 6 images" in result.output
    settings = json.loads((tmp_path / "__out__/run.json").read_text())
    assert (settings["accepted_per_class"], settings["count"], settings["made"]) == (3, 60, 6)
    assert "already holds all 6 images" in sample(*options, "--resume").output


def test_a_budget_that_is_used_up_says_what_is_missing(sample, tmp_path):
    options = ("--count", "4", "--count-accepted", "--budget", "6", "--labels", "sad")
    result = sample(*options, "--threshold", "1")
    assert result.exit_code == 0, result.output
    assert "accepted images are missing: sad 4" in result.output
    assert len(list(read(tmp_path / "out"))) == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--budget", "9"], "--budget needs --count-accepted"),
        (["--budget", "9", "--count-accepted"], "--budget is 9, fewer than the 2048 images wanted"),
        (["--accept-rate", "0"], "--accept-rate must be above 0 and at most 1, got 0"),
        (["--threshold", "2"], "--threshold must be from 0 to 1, got 2"),
        (["--threshold", "0.5", "--accept-rate", "0.5"], "exclude each other"),
        (["--layout-from", "/nowhere"], "no file or directory /nowhere"),
        (["--semantic-every", "2"], "add --semantic-guidance"),
    ],
)
def test_a_bad_selection_is_one_sentence(sample, tmp_path, options, said):
    assert said in refused(sample(*options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("harm", ["missing", "truncated", "altered"])
def test_a_harmed_bundle_is_one_sentence(sample, tiny_bundle_path, tmp_path, harm):
    shutil.copytree(tiny_bundle_path, tmp_path / "bundle")
    file = tmp_path / "bundle/decoder.onnx"
    data = file.read_bytes()
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(data[:-10] if harm == "truncated" else data[:-1] + b"\xff")
    assert "decoder.onnx" in refused(sample(engines=tmp_path / "bundle"))
    assert not (tmp_path / "out").exists()


def other_decoder(bundle, directory, decoder):
    """A copy of a bundle that has this ONNX file for its decoder, and is sound."""
    shutil.copytree(bundle, directory)
    (directory / "decoder.onnx").write_bytes(decoder)
    fields = json.loads((directory / "bundle.json").read_text())
    fields = {name: value for name, value in fields.items() if name not in ("format", "files")}
    write_manifest(directory, fields)
    return directory


FAILING_DECODER = parser.parse_model("""
<ir_version: 10, opset_import: ["" : 21]>
decoder (float[B,4,8,8] latents) => (float[B,3,32,32] images) {
  shape = Constant <value_ints = [5, 3, 32, 32]> ()
  images = Reshape (latents, shape)
}
""").SerializeToString()
"""It loads, and fails on any batch."""


def test_an_engine_that_does_not_load_leaves_nothing_behind(sample, tiny_bundle_path, tmp_path):
    engines = other_decoder(tiny_bundle_path, tmp_path / "bundle", b"no model")
    assert "decoder.onnx cannot be loaded" in refused(sample(engines=engines))
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_before_its_first_sample_leaves_its_directory_free(
    sample, tiny_bundle_path, tmp_path
):
    engines = other_decoder(tiny_bundle_path, tmp_path / "bundle", FAILING_DECODER)
    assert "decoder failed" in refused(sample("--guidance", "2", engines=engines))
    assert sample("--count", "4", "--guidance", "1.5").exit_code == 0
    assert len(list(read(tmp_path / "out"))) == 4


def test_images_that_stay_flat_are_written_counted_and_not_accepted(
    sample, tiny_bundle_path, tmp_path
):
    model = onnx.load(tiny_bundle_path / "decoder.onnx")
    for weight in model.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(weight), weight.name))
    engines = other_decoder(tiny_bundle_path, tmp_path / "bundle", model.SerializeToString())
    result = sample("--count", "3", engines=engines)  # so few stop no run
    assert result.exit_code == 0
    assert "3 of them are flat or not finite, and not accepted; a lower --guidance" in result.output
    assert [record["accepted"] for record, _ in read(tmp_path / "out")] == [False] * 3


@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_shards_have_the_size_that_is_asked_for(sample, tmp_path, format):
    options = ["--count", "10", "--format", format]
    for name, size in (("small", ["--shard-size", "4"]), ("one", [])):
        result = sample(*options, *size, out=tmp_path / name)
        assert result.exit_code == 0, result.output
    small, one = tmp_path / "small", tmp_path / "one"
    shards = [len(list(out.glob("*0*"))) for out in (small, one)]
    assert shards == [3, 1]
    assert list(read(small)) == list(read(one))
    assert run_file.load(small)["shard_size"] == 4
    assert run_file.load(one)["shard_size"] == 10_000


def test_an_unwritable_output_is_one_sentence(sample, tmp_path):
    (tmp_path / "file").touch()
    assert "Cannot write" in refused(sample(out=tmp_path / "file/out"))


def test_help_names_every_solver():
    said = CliRunner().invoke(main, ["sample", "--help"]).output
    assert all(solver in said for solver in SOLVERS)
