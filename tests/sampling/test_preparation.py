"""A piece as arrays: every row belongs to its request, and padding repeats the last."""

from __future__ import annotations

import numpy as np

from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.sampling.preparation import Prepared, prepare
from tests.samples import request


def arrays(piece: Prepared) -> dict[str, np.ndarray]:
    rest = {"latents": piece.latents, "guidance": piece.guidance, "targets": piece.targets}
    return {**piece.inputs, **rest}


def test_a_row_is_the_same_alone_and_among_others(tiny_bundle: Bundle, way: Trajectory) -> None:
    requests = [
        request(i, aus={"AU12": i / 10}, guidance=1.0 + i, prompt="dim light" * (i % 2))
        for i in range(5)
    ]
    together = prepare(requests, tiny_bundle, way)
    assert set(together.inputs) == {"tokens", "aus", "au_scale"}
    for i, one in enumerate(requests):
        alone = prepare([one], tiny_bundle, way)
        for name, array in arrays(together).items():
            np.testing.assert_array_equal(array[[i]], arrays(alone)[name])
            np.testing.assert_array_equal(array[[i]], arrays(together.alone(i))[name])
        assert together.alone(i).requests == alone.requests == (one,)


def test_the_last_request_fills_the_piece_up(tiny_bundle: Bundle, way: Trajectory) -> None:
    requests = [request(i) for i in range(3)]
    piece, whole = prepare(requests, tiny_bundle, way, 8), prepare(requests, tiny_bundle, way)
    assert (len(piece), piece.count, len(whole), whole.count) == (8, 3, 3, 3)
    assert piece.requests == (*requests, *[requests[-1]] * 5)
    for name, array in arrays(piece).items():
        np.testing.assert_array_equal(array[:3], arrays(whole)[name])
        np.testing.assert_array_equal(array[3:], np.repeat(array[2:3], 5, 0))


def test_other_latents_take_the_place_of_the_start(tiny_bundle: Bundle, way: Trajectory) -> None:
    latents = np.random.default_rng(1).normal(size=(3, *tiny_bundle.latent.shape))
    requests = [request(i) for i in range(3)]
    given = prepare(requests, tiny_bundle, way, 4, latents)
    moved = prepare(requests, tiny_bundle, way, 4).starting_at(latents)
    for piece in (given, moved):
        assert piece.latents.dtype == np.float32
        np.testing.assert_array_equal(piece.latents, latents[[0, 1, 2, 2]].astype(np.float32))
    assert given.requests == moved.requests
