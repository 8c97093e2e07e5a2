"""A checkpoint is read with all that it says of itself; a wrong one is refused in a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch
from safetensors.torch import load_file, save_file

from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint import read_checkpoint
from tests.export.tiny_checkpoint import save_adapter


@pytest.fixture
def mini(mini_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(mini_checkpoint, tmp_path / "mini"))


@pytest.fixture
def sd(sd_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sd_checkpoint, tmp_path / "sd"))


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(directory: Path) -> str:
    with pytest.raises(UserError) as error:
        read_checkpoint(directory)
    return str(error.value)


def test_the_schedule_is_the_schedulers_own(mini_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(mini_checkpoint)
    assert checkpoint.prediction_type == "v_prediction"
    assert checkpoint.schedule["rescale_zero_terminal_snr"] is True
    assert checkpoint.schedule["timestep_spacing"] == "trailing"
    assert checkpoint.schedule["beta_schedule"] == "linear"


def test_what_a_scheduler_leaves_out_has_its_class_default(sd: Path) -> None:
    path = sd / "scheduler" / "scheduler_config.json"
    path.write_text(
        '{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, '
        '"beta_schedule": "scaled_linear", "set_alpha_to_one": false, "steps_offset": 1}'
    )
    assert read_checkpoint(sd).schedule == {
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "rescale_zero_terminal_snr": False,
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "set_alpha_to_one": False,
    }


def test_without_synfer_json_the_settings_are_sensible(sd_checkpoint: Path) -> None:
    settings = read_checkpoint(sd_checkpoint).settings
    assert (settings.name, settings.au_vocabulary) == ("sd", "opengraphau-41")
    assert settings.class_labels == () and settings.defaults["layout"] == "none"


def test_without_an_adapter_there_are_no_aus(plain_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(plain_checkpoint)
    assert checkpoint.adapter is None and checkpoint.units == 0


def test_an_adapter_given_apart_is_used(plain_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_adapter(read_checkpoint(plain_checkpoint).unet, path)
    checkpoint = read_checkpoint(plain_checkpoint, path)
    assert checkpoint.units == 41 and path in checkpoint.weight_files


def test_a_vocabulary_that_the_length_does_not_tell_must_be_named(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    sd = Path(shutil.copytree(plain_checkpoint, tmp_path / "sd"))
    save_adapter(read_checkpoint(sd).unet, sd / "au_adapter.safetensors", units=12)
    assert "12 action units" in refusal(sd) and "disfa-12" in refusal(sd)
    (sd / "synfer.json").write_text('{"au_vocabulary": "disfa-12"}')
    assert read_checkpoint(sd).units == 12


def test_text_encoder_keys_of_older_transformers_are_read(sd: Path) -> None:
    path = sd / "text_encoder" / "model.safetensors"
    before = read_checkpoint(sd).text_encoder.state_dict()
    tensors = load_file(path)
    renamed = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in tensors.items()}
    renamed["text_model.embeddings.position_ids"] = torch.arange(20)[None]
    save_file(renamed, path, {"format": "pt"})
    after = read_checkpoint(sd).text_encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_missing_weight_is_refused_not_drawn_at_random(sd: Path, part: str) -> None:
    path = next((sd / part).glob("*.safetensors"))
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path, {"format": "pt"})
    assert "lacks 1 weights" in refusal(sd)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_cut_short_are_refused(sd: Path, part: str) -> None:
    path = next((sd / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:1000])
    assert f"{part} cannot be loaded" in refusal(sd)


def test_a_directory_of_another_kind_is_refused(tmp_path: Path) -> None:
    assert "model_index.json cannot be read" in refusal(tmp_path)
    assert "model_index.json" in refusal(tmp_path / "nowhere")


def test_another_pipeline_is_refused_by_its_classes(sd: Path) -> None:
    change(sd / "model_index.json", unet=["diffusers", "FluxTransformer2DModel"])
    assert "FluxTransformer2DModel as unet" in refusal(sd)


def test_a_missing_part_is_refused(sd: Path) -> None:
    shutil.rmtree(sd / "vae")
    assert "no vae/" in refusal(sd)


def test_an_unknown_prediction_type_is_refused(sd: Path) -> None:
    change(sd / "scheduler" / "scheduler_config.json", prediction_type="sample")
    assert "prediction type 'sample'" in refusal(sd)


def test_class_labels_must_fill_the_class_embedding(mini: Path) -> None:
    change(mini / "synfer.json", class_labels=["aus"])
    assert "have 41 numbers, the UNet's class embedding takes 57" in refusal(mini)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"class_labels": ["style"]}, "unknown class_labels"),
        ({"defaults": {"stepz": 3}}, "unknown defaults"),
        ({"defaults": {"solver": "magic"}}, "solver 'magic'"),
        ({"au_vocabulary": "disfa-12"}, "the vocabulary 'disfa-12'"),
        ({"label_scheme": "mine"}, "Unknown label scheme"),
    ],
)
def test_wrong_settings_are_refused(mini: Path, fields: dict[str, Any], reason: str) -> None:
    change(mini / "synfer.json", **fields)
    assert reason in refusal(mini)
