"""Random numbers belong to (seed, index, purpose), never to a batch or a machine."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from synfer_rt.diffusion import noise

STREAMS = ("latents", "request", "layout", "posterior", "step")


def test_the_bits_are_those_of_philox4x64_10() -> None:
    # Known answer of the Random123 distribution for an all-zero counter and key. NumPy counts up
    # before its first block, so a counter of all ones arrives there at zero.
    ones = np.full(4, 2**64 - 1, np.uint64)
    bits = np.random.Philox(key=np.zeros(2, np.uint64), counter=ones).random_raw(4)
    expected = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert bits.tolist() == expected


@pytest.mark.parametrize(
    ("stream", "known"),
    [
        ("latents", "023e6cc5c65a0590"),
        ("request", "16675cd73ede3887"),
        ("layout", "93062ec31f05ac1f"),
        ("posterior", "21f60573d5b1616a"),
        ("step", "87317971345c5864"),
    ],
)
def test_the_numbers_of_a_sample_never_change(stream: str, known: str) -> None:
    numbers = noise.uniform(1, 2, 1000, stream)
    assert hashlib.sha256(numbers.astype("<f8").tobytes()).hexdigest()[:16] == known


def test_the_noise_of_a_sample_never_changes() -> None:
    first = noise.normal(1, 2, (4,))
    np.testing.assert_allclose(first, [0.8372904, 0.9129311, 0.1977054, -0.2228043], rtol=1e-6)


@pytest.mark.parametrize("stream", STREAMS)
def test_uniform_numbers_fill_the_unit_interval(stream: str) -> None:
    numbers = noise.uniform(3, 4, 100_000, stream)
    assert 0 <= numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    counts = np.histogram(numbers, 10, (0, 1))[0]
    assert np.abs(counts - 10_000).max() < 500


def test_normal_numbers_are_standard_normal() -> None:
    numbers = noise.normal(0, 0, (200_000,)).astype(np.float64)
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.std() - 1) < 0.01
    assert abs((numbers**3).mean()) < 0.03
    assert abs((numbers**4).mean() - 3) < 0.08
    assert abs(np.corrcoef(numbers[:100_000], numbers[100_000:])[0, 1]) < 0.01


def test_normal_numbers_are_float32_of_the_shape_asked_for() -> None:
    numbers = noise.normal(0, 0, (4, 3, 5))
    assert numbers.shape == (4, 3, 5)
    assert numbers.dtype == np.float32
    assert np.isfinite(noise.normal(0, 0, (3, 3))).all()


def keys() -> list[tuple[int, int, str]]:
    return [(s, i, stream) for s in (0, 1) for i in (0, 1, 2**40) for stream in STREAMS]


def test_seeds_indices_and_streams_are_independent() -> None:
    rows = np.stack([noise.uniform(*key[:2], 2000, key[2]) for key in keys()])
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlation).max() < 0.1


def test_seed_and_index_are_not_interchangeable() -> None:
    assert not np.array_equal(noise.normal(1, 2, (8,)), noise.normal(2, 1, (8,)))


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    shorter, longer = (noise.uniform(5, 6, count, "request") for count in (7, 70))
    np.testing.assert_array_equal(longer[:7], shorter)


def test_largest_seed_and_index() -> None:
    assert np.isfinite(noise.normal(2**64 - 1, 2**64 - 1, (4,))).all()


def test_an_unknown_stream_is_an_error() -> None:
    with pytest.raises(KeyError):
        noise.uniform(0, 0, 1, "stream")


@pytest.mark.parametrize("shape", [(1,), (3,), (4, 16, 16), (5, 7, 3), (2, 1500), (9000,)])
def test_the_noise_of_a_batch_is_that_of_each_to_the_last_bit(shape: tuple[int, ...]) -> None:
    keys = [(seed, index) for seed in (0, 7, 2**64 - 1) for index in (0, 1, 2**63, 2**64 - 1)]
    together = noise.normals(keys, shape, "posterior")
    assert together.shape == (len(keys), *shape)
    for row, (seed, index) in zip(together, keys, strict=True):
        assert row.tobytes() == noise.normal(seed, index, shape, "posterior").tobytes()


def test_normal_numbers_are_box_mullers_of_the_uniform_ones() -> None:
    for count in (1, 5, 1024):
        pairs = noise.uniform(3, 9, 2 * ((count + 1) // 2), "latents").reshape(2, -1)
        radius, angle = np.sqrt(-2.0 * np.log1p(-pairs[0])), 2.0 * np.pi * pairs[1]
        expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
        found = noise.normals([(1, 1), (3, 9), (2, 2)], (count,))[1]
        assert found.tobytes() == expected.astype(np.float32).tobytes()


@pytest.mark.parametrize("stream", STREAMS)
def test_each_key_has_a_generator_of_its_own(stream: str) -> None:
    keys = [(2**64 - 1, 0), (0, 2**64 - 1), (3, 4)]
    together = noise.uniforms(keys, 9, stream)
    for row, (seed, index) in zip(together, keys, strict=True):
        key = np.array([seed, index], np.uint64)
        counter = np.array([0, 0, 0, STREAMS.index(stream)], np.uint64)
        bits = np.random.Philox(key=key, counter=counter).random_raw(9)
        np.testing.assert_array_equal(row, (bits >> np.uint64(11)) * 2.0**-53)


def test_no_keys_draw_no_numbers() -> None:
    assert noise.uniforms([], 3, "layout").shape == (0, 3)
    assert noise.normals([], (2, 3)).shape == (0, 2, 3)


def test_the_numbers_of_a_step_are_those_of_the_next_counter() -> None:
    key = np.array([3, 9], np.uint64)
    for step in (0, 1, 999):
        counter = np.array([0, 0, step, STREAMS.index("step")], np.uint64)
        bits = np.random.Philox(key=key, counter=counter).random_raw(7)
        found = noise.uniforms([(1, 1), (3, 9)], 7, "step", step)[1]
        np.testing.assert_array_equal(found, (bits >> np.uint64(11)) * 2.0**-53)


def test_the_noise_of_steps_is_independent() -> None:
    draws = [noise.normals([(5, 6)], (2000,), "step", step)[0] for step in range(4)]
    draws += [noise.normal(5, 6, (2000,)), noise.normal(5, 6, (2000,), "posterior")]
    assert np.abs(np.corrcoef(draws) - np.eye(len(draws))).max() < 0.1
