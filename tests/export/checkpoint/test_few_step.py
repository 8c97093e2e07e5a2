"""Models of few steps are recognised, or named by `few_step`, and get the settings they need."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
from click.testing import CliRunner

from synfer_rt.commands.cli import main
from synfer_rt.errors import UserError
from synfer_rt.export.build.hashes import sha256
from synfer_rt.export.checkpoint import few_step
from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.checkpoint.few_step import by_name, parse_few_step
from synfer_rt.export.checkpoint.index import _json_files
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.lora.merge import Lora
from synfer_rt.export.graphs.engine_graphs import engine_names
from tests.export.tiny_checkpoint import change, refusal, save_lora

PUBLISHED = {
    "pytorch_lora_weights.safetensors": None,
    "models--latent-consistency--lcm-lora-sdv1-5/snapshots/1a/pytorch_lora_weights.safetensors": (
        "lcm:4"
    ),
    "models--h1t--TCD-SD15-LoRA/snapshots/1a/pytorch_lora_weights.safetensors": "tcd:4",
    "TCD-SD15-LoRA/pytorch_lora_weights.safetensors": "tcd:4",
    "lcm/adapter_model.safetensors": "lcm:4",
    "lcm/watercolour.safetensors": None,
    "LCM_LoRA_Weights_SD15.safetensors": "lcm:4",
    "sd1.5-lcm.safetensors": "lcm:4",
    "lcmlora.safetensors": "lcm:4",
    "calcme.safetensors": None,
    "Hyper-SD15-1step-lora.safetensors": "hyper-sd-unified:1",
    "Hyper-SD15-2steps-lora.safetensors": "hyper-sd:2",
    "Hyper-SD15-8steps-lora.safetensors": "hyper-sd:8",
    "Hyper-SD15-8steps-CFG-lora.safetensors": "hyper-sd-cfg:8",
    "Hyper-SD15-12steps-CFG-lora.safetensors": "hyper-sd-cfg:12",
    "hyper_sd_v2.safetensors": "hyper-sd",
    "Hyper-SDXL-4steps-lora.safetensors": None,
}
"""Published names, and names that users give, with what they say."""


def lora(checkpoint: Path, place: Path, name: str) -> Lora:
    """A small LoRA for `checkpoint` under another name."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    path = save_lora(place, unet=unet)
    return Lora(path.rename(place / name))


def defaults(checkpoint: Checkpoint) -> tuple[str, int, float]:
    own = checkpoint.settings.defaults
    return own["solver"], own["steps"], own["guidance"]


@pytest.mark.parametrize(("name", "said"), PUBLISHED.items())
def test_a_name_says_the_kind_and_the_steps(name: str, said: str | None) -> None:
    found = by_name(Path("/loras") / name)
    assert (found and str(found)) == said


def test_hyper_sd_is_sampled_by_ddim_with_trailing_spacing(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    given = lora(plain_checkpoint, tmp_path, "Hyper-SD15-4steps-lora.safetensors")
    before = read_checkpoint(plain_checkpoint)
    found = read_checkpoint(plain_checkpoint, loras=[given])
    assert defaults(found) == ("ddim", 4, 1.0)
    assert found.schedule == before.schedule | {"timestep_spacing": "trailing"}
    (said,) = found.remarks  # diffusers' DDIM is exact, so nothing is replaced
    assert f"By the name of the LoRA {given.path}" in said
    assert "hyper-sd:4" in said and "ddim, 4 steps and guidance 1 by default" in said


def test_the_cfg_preserved_ones_are_guided(plain_checkpoint: Path, tmp_path: Path) -> None:
    given = lora(plain_checkpoint, tmp_path, "Hyper-SD15-12steps-CFG-lora.safetensors")
    assert defaults(read_checkpoint(plain_checkpoint, loras=[given])) == ("ddim", 12, 5.0)


def test_the_settings_of_synfer_json_are_for_the_model_without_the_lora(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    plain = Path(shutil.copytree(plain_checkpoint, tmp_path / "model"))
    own = {"steps": 20, "guidance": 6.0, "negative_prompt": "blurry"}
    (plain / "synfer.json").write_text(json.dumps({"defaults": own}))
    given = lora(plain, tmp_path / "lora", "Hyper-SD15-4steps-lora.safetensors")
    found = read_checkpoint(plain, loras=[given])
    assert defaults(found) == ("ddim", 4, 1.0)
    assert found.settings.defaults["negative_prompt"] == "blurry"
    assert "not with the steps and guidance of synfer.json" in found.remarks[-1]


def test_the_option_overrides_the_name_and_needs_no_lora(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    given = lora(plain_checkpoint, tmp_path, "lcm-lora.safetensors")
    usual = read_checkpoint(plain_checkpoint)
    none = read_checkpoint(plain_checkpoint, loras=[given], few_step="none")
    assert (none.settings.defaults, none.remarks) == (usual.settings.defaults, usual.remarks)
    other = read_checkpoint(plain_checkpoint, loras=[given], few_step="hyper-sd:2")
    assert defaults(other) == ("ddim", 2, 1.0)
    assert "By `few_step`, this is a few-step model of the kind hyper-sd:2" in other.remarks[-1]
    alone = read_checkpoint(plain_checkpoint, few_step="Hyper-SD-CFG:6")
    assert defaults(alone) == ("ddim", 6, 5.0)


def test_a_published_file_is_known_by_its_hash_under_any_name(
    plain_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = lora(plain_checkpoint, tmp_path, "lcm-or-what.safetensors")
    monkeypatch.setitem(few_step._PUBLISHED, sha256(given.path), "hyper-sd:8")
    found = read_checkpoint(plain_checkpoint, loras=[given])
    assert defaults(found) == ("ddim", 8, 1.0)
    assert f"By the hash of the LoRA {given.path}" in found.remarks[-1]


def test_every_published_hash_is_one_of_a_known_kind() -> None:
    for digest, said in few_step._PUBLISHED.items():
        assert len(bytes.fromhex(digest)) == 32
        assert parse_few_step(said) is not None


def test_loras_of_two_kinds_are_refused_unless_one_is_without_effect(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    first = lora(plain_checkpoint, tmp_path / "a", "Hyper-SD15-4steps-lora.safetensors")
    second = lora(plain_checkpoint, tmp_path / "b", "Hyper-SD15-8steps-lora.safetensors")
    with pytest.raises(UserError, match=r"of hyper-sd:4, and .* of hyper-sd:8, .*`few_step`"):
        read_checkpoint(plain_checkpoint, loras=[first, second])
    found = read_checkpoint(plain_checkpoint, loras=[Lora(first.path, 0.0), second])
    assert defaults(found) == ("ddim", 8, 1.0)


def test_a_name_without_its_steps_is_not_guessed(plain_checkpoint: Path, tmp_path: Path) -> None:
    given = lora(plain_checkpoint, tmp_path, "hyper-sd.safetensors")
    with pytest.raises(UserError, match="does not say for how many steps"):
        read_checkpoint(plain_checkpoint, loras=[given])


REFUSED = {
    "lmc": "the nearest is lcm",
    "lcm:0": "must be a whole number of at least 1, got 'lcm:0'; write lcm:4",
    "tcd:x": "must be a whole number",
    "hyper-sd": "needs the number of steps .* write hyper-sd:8",
    "none:4": "Unknown `few_step` 'none:4'",
}


@pytest.mark.parametrize(("given", "words"), REFUSED.items())
def test_what_is_no_kind_is_refused(given: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_few_step(given)


def test_the_command_refuses_it_in_its_own_words(tmp_path: Path) -> None:
    args = ["build-engines", str(tmp_path), "--out", str(tmp_path / "out"), "--few-step", "lmc"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2
    assert "Unknown --few-step 'lmc'" in " ".join(result.output.split())


def test_a_checkpoint_without_few_steps_keeps_the_general_defaults(sd: Path) -> None:
    path: Any = sd / "scheduler" / "scheduler_config.json"
    change(path, _class_name="DDIMScheduler")
    assert defaults(read_checkpoint(sd)) == ("ddim", 25, 7.5)


def content_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "scheduler" / "scheduler_config.json").read_text())


def embedding(plain_checkpoint: Path, place: Path) -> Path:
    """A copy of the checkpoint whose UNet embeds guidance."""
    directory = Path(shutil.copytree(plain_checkpoint, place))
    unet: Any = diffusers.UNet2DConditionModel.from_pretrained(directory / "unet")
    other: Any = diffusers.UNet2DConditionModel.from_config(
        {**unet.config, "time_cond_proj_dim": 8}
    )
    other.save_pretrained(directory / "unet")
    return directory


def test_a_unet_that_embeds_guidance_is_read_and_has_one_branch(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    found = read_checkpoint(embedding(plain_checkpoint, tmp_path / "model"))
    assert found.embeds_guidance
    assert found.settings.defaults["guidance"] == 8.5
    assert engine_names(found) == ("conditioner", "denoiser", "decoder", "encoder")


def test_a_unet_that_embeds_guidance_has_no_default_negative_prompt(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    directory = embedding(plain_checkpoint, tmp_path / "model")
    own = {"guidance": 4.0, "negative_prompt": "blurry"}
    (directory / "synfer.json").write_text(json.dumps({"defaults": own}))
    assert "embeds guidance and has no branch that reads one; remove it" in refusal(directory)
    change(directory / "synfer.json", defaults={"guidance": 4.0})
    assert read_checkpoint(directory).settings.defaults["guidance"] == 4.0


def test_an_unpacked_checkpoint_is_sampled_as_its_bundle_was(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    given = lora(plain_checkpoint, tmp_path / "lora", "Hyper-SD15-4steps-lora.safetensors")
    built = read_checkpoint(plain_checkpoint, loras=[given])
    directory = Path(shutil.copytree(plain_checkpoint, tmp_path / "unpacked"))
    for name, content in _json_files(built).items():
        (directory / name).write_text(json.dumps(content))
    again = read_checkpoint(directory)
    assert (again.schedule, again.settings.defaults) == (built.schedule, built.settings.defaults)
    assert again.remarks == ()
    pipeline: Any = diffusers.StableDiffusionPipeline.from_pretrained(
        directory, safety_checker=None, feature_extractor=None
    )
    assert isinstance(pipeline.scheduler, diffusers.DDIMScheduler)
    assert pipeline.scheduler.config["timestep_spacing"] == "trailing"
    assert content_of(directory)["clip_sample"] is False  # DDIM's own default, which spoils latents


FRESH_NOISE = {
    "lcm-lora-sdv1-5.safetensors": ("lcm", 4, 1.0),
    "tcd_lora.safetensors": ("tcd", 4, 1.0),
    "Hyper-SD15-1step-lora.safetensors": ("tcd", 1, 1.0),
}


@pytest.mark.parametrize(("name", "wanted"), FRESH_NOISE.items())
def test_a_lora_with_fresh_noise_gets_its_solver(
    plain_checkpoint: Path, tmp_path: Path, name: str, wanted: tuple[str, int, float]
) -> None:
    given = lora(plain_checkpoint, tmp_path, name)
    found = read_checkpoint(plain_checkpoint, loras=[given])
    assert defaults(found) == wanted
    (said,) = found.remarks
    assert f"with the solver {wanted[0]}, {wanted[1]} steps and guidance 1 by default" in said
    more = read_checkpoint(plain_checkpoint, loras=[given], few_step="hyper-sd-unified:6")
    assert defaults(more) == ("tcd", 6, 1.0)


@pytest.mark.parametrize(("name", "solver"), [("LCMScheduler", "lcm"), ("TCDScheduler", "tcd")])
def test_the_scheduler_of_a_distilled_checkpoint_implies_few_steps(
    sd: Path, name: str, solver: str
) -> None:
    change(sd / "scheduler" / "scheduler_config.json", _class_name=name)
    change(sd / "model_index.json", scheduler=["diffusers", name])
    found = read_checkpoint(sd)
    assert (defaults(found), found.remarks) == ((solver, 4, 1.0), ())
    (sd / "synfer.json").write_text(json.dumps({"defaults": {"steps": 6}}))
    assert defaults(read_checkpoint(sd)) == (solver, 6, 1.0)
