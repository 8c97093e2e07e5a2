"""A classifier with any operator gives the right probabilities on the backend that auto chooses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch
from onnx.reference import ReferenceEvaluator

from synfer_rt import backends
from synfer_rt.backends import open_engine, runs_on
from synfer_rt.backends.parity import difference, measure
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.engine_specs import EngineSpec, RuntimeParity, TensorSpec
from synfer_rt.export.build.entries import interface
from synfer_rt.export.networks.classifier import ClassifierSource
from synfer_rt.export.networks.image_network import compose_network, reference
from tests.backends.operators.variant import PIXELS, Variant, images
from tests.backends.operators.variants import variants

OPENVINO, NAME = "openvino-cpu", "classifier.operator"
ROUNDING = 1e-3

OTHERWISE = {
    r"(Log)?Softmax\[(1|2|default)\]-11": "takes one axis, as from version 13 on",
    r"LpNormalization\[1,.*": "sums the values instead of their magnitudes",
    r"MaxPool\[lower\]-.*": "puts the odd row of SAME_LOWER at the end",
    r"LpPool\[ceil,.*": "scales up what the last, smaller windows sum",
    r"GridSample\[cubic,border,.*-20": "does not repeat the border for a cubic's neighbours",
    r"BatchNormalization-9": "mixes the given statistics with the batch's",
    r"LRN-.*": "runs over images where it should run over channels",
}
"""Where onnx's evaluator (1.23.2) disagrees with ONNX Runtime, and with the specification: how."""


def source(variant: Variant, folder: Path) -> ClassifierSource:
    file = folder / "operator.onnx"
    onnx.save(variant.network(), file)
    return ClassifierSource(
        "operator",
        file,
        PIXELS,
        "rgb",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        label_scheme="affectnet-8",
    )


def with_engine(bundle: Bundle, folder: Path, classifier: ClassifierSource) -> Bundle:
    """The bundle with the classifier as an engine whose parity was measured."""
    onnx.save(compose_network(classifier, (PIXELS, PIXELS)), folder / f"{NAME}.onnx")
    fields = interface(folder / f"{NAME}.onnx")
    given, returned = (
        tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in fields[side])
        for side in ("inputs", "outputs")
    )
    spec = EngineSpec(NAME, f"{NAME}.onnx", "fp32", fields["opset"], given, returned)
    engines = {**bundle.engines, NAME: spec}
    bundle = replace(bundle, path=folder, engines=engines, bundle_hash=folder.name)
    measured = replace(spec, parity_openvino=RuntimeParity.from_manifest(measure(bundle, NAME)))
    return replace(bundle, engines={**engines, NAME: measured})


@pytest.mark.slow
@pytest.mark.skipif(not backends.status(OPENVINO).works, reason=backends.status(OPENVINO).reason)
@pytest.mark.parametrize("variant", variants(), ids=lambda variant: variant.id)
def test_auto_runs_an_operator_where_it_is_right(
    tiny_bundle: Bundle, tmp_path: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("openvino", "parity"):  # bfloat16 rounds by more than ROUNDING
        monkeypatch.setattr(f"synfer_rt.backends.{module}.has_bfloat16", lambda: False)
    classifier = source(variant, tmp_path)
    bundle = with_engine(tiny_bundle, tmp_path, classifier)
    engine = open_engine(bundle, NAME, runs_on(bundle.engines[NAME], OPENVINO), 1)
    for batch in (5, 24):  # others than those that were measured
        given = images(100 + batch)[:batch]
        wanted = reference(classifier, torch.from_numpy(given)).numpy()
        found = engine.run({"images": given})["probabilities"]
        assert difference("probabilities", found, wanted) < ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("variant", variants(), ids=lambda variant: variant.id)
def test_onnxruntime_computes_an_operator_as_onnx_defines_it(
    tmp_path: Path, variant: Variant
) -> None:
    classifier, given = source(variant, tmp_path), images(3)
    try:
        evaluator = ReferenceEvaluator(str(classifier.path))
        (scores,) = map(np.asarray, evaluator.run(None, {"images": given}))
    except Exception as error:  # the evaluator does not know every operator in every form
        pytest.skip(f"onnx's reference cannot run it: {error}")
    found = reference(classifier, torch.from_numpy(given)).numpy()
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    wanted = exponentials / exponentials.sum(1, keepdims=True)
    differs = difference("probabilities", found, wanted) > ROUNDING
    assert differs == any(re.fullmatch(pattern, variant.id) for pattern in OTHERWISE)
