"""What synfer.json and the file beside an adapter say counts; what is wrong in them is refused."""

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
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.au_vocabulary import au_names
from synfer_rt.vocabulary import facs, label_schemes
from tests.export.tiny_checkpoint import (
    change,
    make_sd2,
    refusal,
    save_adapter,
    save_fineface,
)


def test_without_synfer_json_the_settings_are_sensible(sd_checkpoint: Path) -> None:
    settings = read_checkpoint(sd_checkpoint).settings
    assert (settings.name, settings.au_vocabulary) == ("sd", "opengraphau-41")
    assert settings.class_labels == () and settings.defaults["layout"] == "none"


def test_a_list_of_expressions_is_a_label_scheme(mini: Path) -> None:
    change(mini / "synfer.json", label_scheme=["Happiness", "sad", "neutral"])
    scheme = read_checkpoint(mini).settings.label_scheme
    assert label_schemes.scheme(scheme) == ("happy", "sad", "neutral")


def test_a_scheme_file_in_the_checkpoint_is_a_label_scheme(mini: Path) -> None:
    (mini / "mine.json").write_text('{"classes": ["Happiness", "bored", "contented"]}')
    change(mini / "synfer.json", label_scheme="mine.json")
    scheme = read_checkpoint(mini).settings.label_scheme
    assert label_schemes.scheme(scheme) == ("happy", "bored", "contented")


def test_a_vocabulary_without_an_adapter_is_refused(plain_checkpoint: Path, tmp_path: Path) -> None:
    sd = Path(shutil.copytree(plain_checkpoint, tmp_path / "sd"))
    (sd / "synfer.json").write_text('{"au_vocabulary": "opengraphau-41"}')
    assert "no AU adapter; give the adapter as `au_adapter`" in refusal(sd)


def test_an_activation_stands_between_two_layers(sd: Path) -> None:
    path, beside = sd / "au_adapter.safetensors", sd / "au_adapter.json"
    beside.write_text('{"activation": "silu", "activation_fn": "swish", "au_vocab": 3}')
    assert read_checkpoint(sd).settings.activation is None  # of the training code
    (sd / "synfer.json").write_text('{"activation": "silu"}')
    assert "no AU adapter with two layers" in refusal(sd)
    (sd / "synfer.json").unlink()
    tensors = {k: v for k, v in load_file(path).items() if k.startswith("ip_adapter.")}
    layers = {"0": torch.nn.Linear(41, 7), "2": torch.nn.Linear(7, 16)}
    tensors |= {
        f"image_proj.proj.{i}.{name}": tensor
        for i, layer in layers.items()
        for name, tensor in layer.state_dict().items()
    }
    save_file(tensors, path)
    aus = torch.rand(2, 41)
    for activation in ("silu", "relu", "gelu"):
        beside.write_text(json.dumps({"activation": activation.upper()}))
        checkpoint = read_checkpoint(sd)
        assert checkpoint.adapter is not None and checkpoint.settings.activation == activation
        between = getattr(torch.nn.functional, activation)
        wanted = layers["2"](between(layers["0"](aus)))
        torch.testing.assert_close(checkpoint.adapter.projection(aus)[:, 0], wanted)
    beside.write_text("{}")
    assert read_checkpoint(sd).settings.activation == "gelu"
    beside.write_text('{"activation": "tanh"}')
    assert "The activation 'tanh'" in refusal(sd) and "one of gelu, relu, silu" in refusal(sd)


def test_a_vocabulary_that_the_length_does_not_tell_must_be_named(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    sd = Path(shutil.copytree(plain_checkpoint, tmp_path / "sd"))
    save_adapter(read_checkpoint(sd).unet, sd / "au_adapter.safetensors", units=12)
    assert "12 action units" in refusal(sd) and "disfa-12" in refusal(sd)
    (sd / "synfer.json").write_text('{"au_vocabulary": "disfa-12"}')
    assert read_checkpoint(sd).units == 12


def test_fineface_states_its_vocabulary_and_intensities(tmp_path: Path) -> None:
    make_sd2(tmp_path / "sd2")
    plain = read_checkpoint(tmp_path / "sd2")
    save_fineface(plain.unet, tmp_path / "fineface")
    checkpoint = read_checkpoint(tmp_path / "sd2", tmp_path / "fineface")
    assert checkpoint.settings.au_vocabulary == "disfa-12" and checkpoint.units == 12
    assert checkpoint.adapter is not None
    assert checkpoint.adapter.maximum == checkpoint.settings.au_maximum == 5
    changed = [
        name
        for name, tensor in checkpoint.unet.state_dict().items()
        if not torch.equal(tensor, plain.unet.state_dict()[name])
    ]
    assert changed and all(".to_" in n or ".net.2." in n or ".conv1." in n for n in changed)
    names = {file.name for file in checkpoint.weight_files}
    assert {"au_encoder.ckpt", "attn_processors.ckpt"} < names


def test_a_file_beside_the_adapter_names_its_vocabulary_and_maximum(
    plain_checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    save_adapter(read_checkpoint(plain_checkpoint).unet, path, units=3)
    fields = {"au_vocabulary": ["AU1", "AU45", "L12"], "learning_rate": 1e-4}
    (tmp_path / "mine.json").write_text(json.dumps(fields))
    checkpoint = read_checkpoint(plain_checkpoint, path)
    assert checkpoint.settings.au_vocabulary == ["AU1", "AU45", "L12"] and checkpoint.units == 3
    assert checkpoint.adapter is not None and checkpoint.adapter.maximum == 1
    change(tmp_path / "mine.json", au_maximum=4)
    checkpoint = read_checkpoint(plain_checkpoint, path)
    assert checkpoint.adapter is not None and checkpoint.adapter.maximum == 4
    change(tmp_path / "mine.json", au_vocabulary="disfa-12")
    with pytest.raises(UserError, match=r"'disfa-12' in .*mine\.json has 12"):
        read_checkpoint(plain_checkpoint, path)
    (tmp_path / "mine.json").write_text('{"au_maximun": 5}')
    with pytest.raises(
        UserError, match=r"mine\.json has the unknown field 'au_maximun'; .* is au_m"
    ):
        read_checkpoint(plain_checkpoint, path)


def test_action_units_are_read_in_the_spellings_of_others(tmp_path: Path) -> None:
    given = ["AU01", "AU02_r", "AU45_c", "au4", "AU12L", "AUR12", "L06", "14", "AU5R"]
    names = au_names(tmp_path / "mine.json", given)
    assert names == ("AU1", "AU2", "AU45", "AU4", "L12", "R12", "L6", "AU14", "R5")
    assert au_names(tmp_path, "disfa-12") == facs.VOCABULARIES["disfa-12"]


@pytest.mark.parametrize(
    ("vocabulary", "reason"),
    [
        (
            ["AU1", "smirk"],
            "names 'smirk', which is not an action unit of FACS; the nearest known is",
        ),
        (["AU1", "AU99"], "names 'AU99', which"),
        (["AU1", "LAU12R"], "names 'LAU12R', which"),
        (["AU01_r", "AU01_c"], "not a list of different action units"),
        (["AU1", 2], "not a list of different action units"),
        ("facs", "not a list of different action units"),
        ([], "not a list of different action units"),
        (5, "not a list of different action units"),
    ],
)
def test_other_names_than_those_of_facs_are_refused(vocabulary: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        au_names(Path("mine.json"), vocabulary)
    assert "mine.json" in str(error.value)


def test_class_labels_must_fill_the_class_embedding(mini: Path) -> None:
    change(mini / "synfer.json", class_labels=["aus"])
    assert "have 41 numbers, but the UNet's class embedding takes 57" in refusal(mini)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"class_labels": ["style"]}, "unknown class_labels"),
        ({"defaults": {"stepz": 3}}, "unknown defaults"),
        ({"defaults": None}, "defaults that are not an object"),
        ({"defaults": []}, "defaults that are not an object"),
        ({"defaults": {"solver": "magic"}}, "solver 'magic'"),
        ({"defaults": {"solver": ["ddim"]}}, "the default solver ['ddim']"),
        ({"defaults": {"steps": 2.5}}, "the default steps 2.5"),
        ({"defaults": {"guidance": True}}, "the default guidance True"),
        ({"defaults": {"layout": "faces"}}, "the default layout 'faces'"),
        ({"defaults": {"steps": 0}}, "synfer.json: `steps` must be"),
        ({"defaults": {"steps": 900, "layout": "bank"}}, "number from 1 to 800"),
        ({"defaults": {"guidance": float("nan")}}, "the default guidance nan"),
        ({"defaults": {"au_scale": -1}}, "the default au_scale -1"),
        ({"defaults": {"layout_strength": 7}}, "the default layout_strength 7"),
        ({"au_maximun": 5}, "unknown field 'au_maximun'; the nearest is au_maximum"),
        ({"license": "MIT"}, "unknown field 'license'; the nearest is licence"),
        ({"class_labels": 5}, "class_labels 5"),
        ({"au_vocabulary": "disfa-12"}, "the vocabulary 'disfa-12'"),
        ({"label_scheme": "mine"}, "Unknown label scheme"),
        ({"label_scheme": ["affectnet-8"]}, "Unknown label scheme"),
        ({"label_scheme": "happy,sad,-"}, "write classes alone"),
        ({"au_vocabulary": ["AU1", "AU1"]}, "not a list of different action units"),
        ({"au_maximum": 0}, "au_maximum 0"),
        ({"au_maximum": "5"}, "au_maximum '5'"),
    ],
)
def test_wrong_settings_are_refused(mini: Path, fields: dict[str, Any], reason: str) -> None:
    change(mini / "synfer.json", **fields)
    assert reason in refusal(mini)
