"""An AU reader's engine says the model's units, in the model's order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch

from synfer_rt.errors import UserError
from synfer_rt.export.networks.au_reader import read_au_reader
from synfer_rt.export.networks.image_network import compose_network, reference
from synfer_rt.vocabulary import facs
from tests.export.tiny_checkpoint import save_classifier

OWN, WANTED = ("AU1", "AU2", "AU4", "AU12"), ("AU12", "AU1", "AU2")


def reader(folder: Path, **fields: object) -> Path:
    """Four units of 24-pixel images, with its description."""
    save_classifier(folder / "au_reader.onnx", channels=3, classes=4)
    known = {
        "au_vocabulary": OWN,
        "input_size": 24,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.5],
    }
    (folder / "au_reader.json").write_text(json.dumps({**known, **fields}))
    return folder / "au_reader.onnx"


def images(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).random((batch, 3, 16, 16), np.float32)


def run(model: onnx.ModelProto, given: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(["aus"], {"images": given})[0])


@pytest.mark.parametrize("batch", [1, 3])
def test_it_is_the_network_with_sigmoid(tmp_path: Path, batch: int) -> None:
    source = read_au_reader(reader(tmp_path), WANTED)
    found = run(compose_network(source, (16, 16)), images(batch))
    wanted = reference(source, torch.from_numpy(images(batch))).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert found.shape == (batch, 3) and found.min() > 0 and found.max() < 1


def test_units_are_chosen_by_name(tmp_path: Path) -> None:
    path = reader(tmp_path)
    own = run(compose_network(read_au_reader(path, OWN), (16, 16)), images(2))
    chosen = run(compose_network(read_au_reader(path, WANTED), (16, 16)), images(2))
    np.testing.assert_array_equal(chosen, own[:, [3, 0, 1]])


def test_intensities_are_taken_as_they_are(tmp_path: Path) -> None:
    logits = read_au_reader(reader(tmp_path), OWN)
    scores = run(compose_network(logits, (16, 16)), images(2))
    plain = read_au_reader(reader(tmp_path, output="intensities"), OWN)
    np.testing.assert_allclose(
        1 / (1 + np.exp(-run(compose_network(plain, (16, 16)), images(2)))), scores, atol=1e-6
    )


def test_logits_are_no_intensities(tmp_path: Path) -> None:
    source = read_au_reader(reader(tmp_path, output="intensities"), OWN)
    with pytest.raises(UserError, match=r"giving intensities, but .*as logits"):
        reference(source, torch.from_numpy(images(2)))


def test_a_vocabulary_may_be_named(tmp_path: Path) -> None:
    source = read_au_reader(reader(tmp_path, au_vocabulary="disfa-8"), ("AU12",))
    assert source.units == facs.vocabulary("disfa-8")
    with pytest.raises(UserError, match=r"has 4 outputs, its description has 8; correct"):
        compose_network(source, (16, 16))


def test_units_go_by_any_of_their_spellings(tmp_path: Path) -> None:
    path = reader(tmp_path, au_vocabulary=["AU01", "AU02_r", "4", "AU12"])
    assert read_au_reader(path, WANTED).units == OWN
    with pytest.raises(UserError, match="not a list of different action units"):
        read_au_reader(reader(tmp_path, au_vocabulary=3), WANTED)


def test_scores_that_are_no_units_are_left_out(tmp_path: Path) -> None:
    path = reader(tmp_path, au_vocabulary=["AU1", "-", "AU12", "-"])
    source = read_au_reader(path, ("AU12", "AU1"))
    every = run(compose_network(read_au_reader(reader(tmp_path), OWN), (16, 16)), images(2))
    np.testing.assert_array_equal(
        run(compose_network(read_au_reader(path, source.wanted), (16, 16)), images(2)).shape, (2, 2)
    )
    found = run(compose_network(source, (16, 16)), images(2))
    np.testing.assert_allclose(found, every[:, [2, 0]], atol=1e-6)


def test_a_reader_must_know_the_units_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not read AU6, AU9, which the model has"):
        read_au_reader(reader(tmp_path), ("AU6", "AU1", "AU9"))


def test_a_model_without_aus_needs_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no action units"):
        read_au_reader(reader(tmp_path), ())


@pytest.mark.parametrize("text", ["", "[]", '{"input_size": 24}', '{"au_vocabulary": ["AU1"]}'])
def test_a_description_that_says_too_little_is_refused(tmp_path: Path, text: str) -> None:
    path = reader(tmp_path)
    path.with_suffix(".json").write_text(text)
    with pytest.raises(UserError, match=r"does not describe au_reader\.onnx"):
        read_au_reader(path, WANTED)
