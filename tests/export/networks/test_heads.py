"""Classifiers with several heads, and with valence and arousal beside classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import onnxruntime
import torch

from synfer_rt.errors import UserError
from synfer_rt.export.networks.classifier import (
    ClassifierSource,
    parse_classifier,
    read_classifier,
    with_heads,
)
from synfer_rt.export.networks.image_network import compose_network, reference_outputs
from synfer_rt.export.networks.unpacked_network import unpacked_network
from tests.export.networks.test_third_party_classifiers import (
    FIRST,
    IMAGES,
    SIZE,
    linear,
    save_linear,
    softmax,
)

SPEC = f"{SIZE},rgb"
OWN = "bored,happy,awed,lost,-"
"""The scheme of the second head, whose scores are those of the first, negative."""
MAPPED = {
    "classes": OWN.split(","),
    "mappings": {"affectnet-8": {"bored": "neutral", "awed": {"surprise": 0.5, "fear": 0.5}}},
}


def run(source: ClassifierSource) -> dict[str, np.ndarray]:
    """The outputs of the engine by name, which must be those of its reference."""
    model = compose_network(source, (SIZE, SIZE))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, map(np.asarray, session.run(None, {"images": IMAGES})), strict=True))
    wanted = reference_outputs(source, torch.from_numpy(IMAGES))
    for array, tensor in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(array, tensor.numpy(), atol=1e-6)
    return found


def test_valence_and_arousal_are_outputs_beside_probabilities(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "mtl.onnx", 10)
    source = parse_classifier(path, f"{FIRST},valence,arousal", SPEC)
    found = run(source)
    scores = linear(10)
    np.testing.assert_allclose(found["probabilities"], softmax(scores[:, :8]), atol=1e-5)
    np.testing.assert_allclose(found["valence"], scores[:, 8], atol=1e-4)
    np.testing.assert_allclose(found["arousal"], scores[:, 9], atol=1e-4)
    fields = source.manifest_fields("affectnet-8")
    assert fields == {"label_scheme": FIRST}


def two_heads(path: Path) -> ClassifierSource:
    save_linear(path, 8, others=5)
    (source,) = with_heads(
        [
            parse_classifier(path, "hsemotion-8", f"{SPEC},output=logits"),
            parse_classifier(path, MAPPED, f"{SPEC},output=features"),
        ]
    )
    return source


def test_heads_share_one_network(tmp_path: Path) -> None:
    source = two_heads(tmp_path / "two.onnx")
    found = run(source)
    np.testing.assert_allclose(found["probabilities.logits"], softmax(linear(8)), atol=1e-5)
    second = softmax(-linear(8)[:, :4])
    np.testing.assert_allclose(found["probabilities.features"], second, atol=1e-5)
    kinds = [node.op_type for node in compose_network(source, (SIZE, SIZE)).graph.node]
    assert kinds.count("Reshape") == 1  # the network is there once
    fields = source.manifest_fields("affectnet-8")
    assert fields["label_scheme"] == "hsemotion-8"
    assert fields["heads"]["logits"] == {"label_scheme": "hsemotion-8"}
    mapping = {"bored": {"neutral": 1.0}, "awed": {"surprise": 0.5, "fear": 0.5}}
    assert fields["heads"]["features"] == {
        "label_scheme": "bored,happy,awed,lost",
        "mapping": mapping,
    }
    (said,) = source.remarks("affectnet-8")
    assert "The classes lost of classifier.two.features have no part" in said


def test_a_json_file_may_describe_heads(tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    wanted = two_heads(path)
    heads = [
        {"label_scheme": "hsemotion-8", "output_name": "logits"},
        {"label_scheme": MAPPED, "output_name": "features"},
    ]
    fields = {"input_size": SIZE, "mean": [0] * 3, "std": [1] * 3, "heads": heads}
    path.with_suffix(".json").write_text(json.dumps(fields))
    assert read_classifier(path) == wanted
    heads[1]["output_name"] = "logits"
    path.with_suffix(".json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match="name another of its outputs"):
        read_classifier(path)


def test_an_unpacked_network_has_all_its_heads(tmp_path: Path) -> None:
    source = two_heads(tmp_path / "two.onnx")
    onnx.save(compose_network(source, (SIZE, SIZE)), tmp_path / "engine.onnx")
    description = {"input_size": SIZE, "channels": "rgb"}
    unpacked = unpacked_network(tmp_path / "engine.onnx", source.KIND, description)
    assert {value.name for value in unpacked.graph.outputs} == {"logits", "features"}


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (("raf-db", SPEC), ("raf-db", SPEC), "is given 2 times; name another of its outputs"),
        (("raf-db", f"{SPEC},output=a"), ("raf-db", f"{SIZE},bgr,output=b"), "different inputs"),
        (
            ("raf-db,valence", f"{SPEC},output=a"),
            ("happy,sad,valence", f"{SPEC},output=b"),
            "have valence; write -",
        ),
    ],
)
def test_heads_that_do_not_fit_are_refused(
    tmp_path: Path, first: tuple[str, str], second: tuple[str, str], said: str
) -> None:
    scheme = first[0].replace("raf-db,", "happy,sad,fear,")
    path = tmp_path / "a.onnx"
    with pytest.raises(UserError, match=said):
        with_heads([parse_classifier(path, scheme, first[1]), parse_classifier(path, *second)])
