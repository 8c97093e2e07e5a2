"""Equal rows of the conditioning are computed once, and have the values that they had alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from synfer_rt import backends
from synfer_rt.backends import open_engine
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.sampling.conditioning import distinct, restored
from synfer_rt.sampling.preparation import conditioner_inputs
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler

Arrays = Mapping[str, np.ndarray]


def doubled(inputs: Arrays) -> dict[str, np.ndarray]:
    """A conditioner of one output, which shows from which row it was made."""
    return {"text": np.concatenate([inputs["tokens"], inputs["aus"]], 2) * 2.0}


def inputs(tokens: list[list[int]], scales: list[float] | None = None) -> dict[str, np.ndarray]:
    ids = np.array(tokens, np.int64)[..., None]
    aus = np.stack([np.zeros(len(ids)), np.arange(len(ids)) % 3], 1)[..., None].astype(np.float32)
    scale = np.array(scales or [1.0] * len(ids), np.float32)
    return {"tokens": ids, "aus": aus, "au_scale": scale}


@pytest.mark.parametrize(
    ("tokens", "pairs"),
    [
        ([[0, n] for n in range(1, 9)], 5),  # the negative prompt and eight others
        ([[0, n] for n in range(1, 8)], 4),
        ([[0, 1], [0, 1], [0, 1], [0, 1], [0, 1], [0, 1]], 4),  # three kinds of action units
        ([[0, 1]], 1),
        ([[n, n + 9] for n in range(4)], 4),  # nothing repeats
        ([[0, 1], [2, 3]], 2),
    ],
)
def test_distinct_rows_are_packed_and_come_back(tokens: list[list[int]], pairs: int) -> None:
    given = inputs(tokens)
    packed, places = distinct(given)
    assert {len(array) for array in packed.values()} == {pairs}
    assert packed["tokens"].shape[1:] == given["tokens"].shape[1:]
    np.testing.assert_array_equal(restored(doubled(packed), places)["text"], doubled(given)["text"])


def test_one_prompt_with_the_same_action_units_is_one_pair() -> None:
    given = inputs([[0, 1]] * 6) | {"aus": np.zeros((6, 2, 3), np.float32)}
    packed, places = distinct(given)
    assert len(packed["tokens"]) == 1
    np.testing.assert_array_equal(places, [[0, 1]] * 6)


def test_images_of_different_scales_stay_apart() -> None:
    given = inputs([[0, 1]] * 4, [1, 1, 2, 1])
    packed, places = distinct(given)
    np.testing.assert_array_equal(packed["au_scale"], given["au_scale"])
    np.testing.assert_array_equal(restored(doubled(packed), places)["text"], doubled(given)["text"])


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return open_bundle()


@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "openvino-cpu"])
@pytest.mark.parametrize("prompt", [None, "a photo of a happy face"])
def test_a_batch_is_conditioned_bit_for_bit_as_each_image_was(
    shipped: Bundle, backend: str, prompt: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not backends.status(backend).works:
        pytest.skip(backends.status(backend).reason)
    requests = make_requests(shipped, prompt=prompt)[:8]
    given = conditioner_inputs(requests, shipped)
    wanted = open_engine(shipped, "conditioner", backend, threads=1).run(given)
    sampler, pairs = Sampler.of(shipped, backend, threads=2), list[int]()
    engine = sampler.engines["conditioner"]
    run = engine.run

    def counting(inputs: Arrays) -> dict[str, np.ndarray]:
        pairs.append(len(inputs["tokens"]))
        return run(inputs)

    monkeypatch.setattr(engine, "run", counting)
    found = sampler.condition(requests)
    assert pairs == [5]
    assert list(found) == list(wanted)
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])
