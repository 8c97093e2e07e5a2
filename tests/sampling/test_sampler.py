"""Sampling: an image depends on its own request alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt.backends import open_engine, to_numpy
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion import noise
from synfer_rt.diffusion.solvers import SOLVERS, Trajectory, trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.sampling.samples import Sample
from synfer_rt.vocabulary import facs
from tests import tiny_bundle as tiny
from tests.samples import difference, request

CPU = "onnxruntime-cpu"


def test_the_images_of_a_batch_differ(sixty_four: list[Sample]) -> None:
    assert all(difference(a, b) > 20 for a, b in pairwise(sixty_four))


@pytest.mark.parametrize("index", [0, 7, 31, 63])
def test_an_index_gives_the_same_image_alone_and_among_64(
    sampler: Sampler, way: Trajectory, sixty_four: list[Sample], index: int
) -> None:
    (alone,) = sampler.sample([request(index)], way, batch=1)
    assert difference(alone, sixty_four[index]) <= 2


def test_an_index_gives_the_same_image_in_any_order(
    sampler: Sampler, way: Trajectory, sixty_four: list[Sample]
) -> None:
    order = np.random.default_rng(0).permutation(64)
    for sample in sampler.sample([request(int(i)) for i in order], way, batch=10):
        assert difference(sample, sixty_four[sample.request.index]) <= 2


@pytest.mark.parametrize("solver", SOLVERS)
def test_batches_do_not_matter_with_any_solver(
    sampler: Sampler, tiny_bundle: Bundle, solver: str
) -> None:
    way = trajectory(solver, tiny_bundle.schedule, 6, 1.0, tiny_bundle.prediction_type)
    requests = [request(i) for i in range(5)]
    apart, together = (sampler.sample(requests, way, batch) for batch in (1, 5))
    assert all(difference(a, b) <= 2 for a, b in zip(apart, together, strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 12},
        {"prompt": "a portrait of an elderly man"},
        {"negative_prompt": "bright light"},
        {"aus": {"AU12": 1.0}},
        {"au_scale": 3.0},
        {"guidance": 7.0},
        {"layout": 5},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_setting_of_one_image_changes_that_image_only(
    sampler: Sampler, way: Trajectory, changes: dict[str, Any]
) -> None:
    before = [request(i) for i in range(6)]
    after = [replace(r, **changes) if r.index == 3 else r for r in before]
    one, other = (sampler.sample(requests, way, 6) for requests in (before, after))
    for a, b in zip(one, other, strict=True):
        if a.request.index == 3:
            assert difference(a, b) > 5
        else:
            assert difference(a, b) <= 2


def test_the_label_is_per_image(sampler: Sampler, way: Trajectory) -> None:
    (probe,) = sampler.sample([request(0)], way, 1)
    other = next(name for name in sampler.bundle.classes if name != probe.best)
    requests = [request(0, label=probe.best), request(0, label=other)]
    right, wrong = sampler.sample(requests, way, 2)
    assert right.accepted
    assert not wrong.accepted


def test_at_guidance_1_the_negative_prompt_says_nothing(sampler: Sampler, way: Trajectory) -> None:
    one, other = sampler.sample(
        [request(1, guidance=1.0), request(1, guidance=1.0, negative_prompt="bright light")],
        way,
        batch=2,
    )
    assert difference(one, other) <= 1


def test_guidance_pushes_the_prediction_from_the_unconditional_one(
    sampler: Sampler, tiny_bundle: Bundle
) -> None:
    """One step at guidance w gives u + w (c - u); three values of w lie on a line."""
    way = trajectory("ddim", tiny_bundle.schedule, 1, 1.0, tiny_bundle.prediction_type)
    requests = [request(2)] * 3
    conditioning, latents = sampler.condition(requests), sampler.start(requests, way)
    (final,) = sampler.denoise(latents, conditioning, np.array([0, 1, 5], "f4"), way)
    u, c, pushed = to_numpy(final)
    np.testing.assert_allclose(pushed, u + 5 * (c - u), atol=1e-4)
    assert np.abs(c - u).max() > 0.01


def test_aus_without_scale_say_nothing(sampler: Sampler, way: Trajectory) -> None:
    off = sampler.sample([request(1, aus={"AU12": 1.0}, au_scale=0.0)], way, 1)[0]
    none = sampler.sample([request(1, aus={}, au_scale=1.0)], way, 1)[0]
    assert difference(off, none) <= 1


def test_the_unconditional_branch_has_the_negative_prompt_and_no_aus(sampler: Sampler) -> None:
    bare = request(0, prompt="dim light", negative_prompt="", aus={})
    full = request(0, prompt="a photo", negative_prompt="dim light", aus={"AU9": 1.0})
    said = {k: to_numpy(v) for k, v in sampler.condition([bare, full]).items()}
    np.testing.assert_array_equal(said["text"][1, 0], said["text"][0, 1])
    np.testing.assert_array_equal(said["au_bias"][1, 0], 0)
    assert np.abs(said["au_bias"][1, 1]).max() > 0


def test_pure_noise_is_the_noise_of_seed_and_index(sampler: Sampler, tiny_bundle: Bundle) -> None:
    way = trajectory("ddim", tiny_bundle.schedule, 4, 1.0, tiny_bundle.prediction_type)
    latents = sampler.start([request(5, layout=None), request(9)], way)
    np.testing.assert_array_equal(latents[0], noise.normal(11, 5, tiny.LATENT))
    np.testing.assert_array_equal(latents[1], noise.normal(11, 9, tiny.LATENT))


def test_a_layout_is_mixed_with_noise_by_the_schedule(
    sampler: Sampler, tiny_bundle: Bundle, way: Trajectory
) -> None:
    (latents,) = sampler.start([request(5, layout=2)], way)
    expected = way.signal * tiny_bundle.layouts.latents[2]
    expected = expected + way.noise * noise.normal(11, 5, tiny.LATENT)
    np.testing.assert_allclose(latents, expected, atol=1e-6)


@pytest.mark.parametrize("layout", [-1, 6])
def test_a_layout_that_the_bank_lacks_is_refused(
    sampler: Sampler, way: Trajectory, layout: int
) -> None:
    with pytest.raises(UserError, match=f"from 0 to 5, the rows .* got {layout} in sample 8"):
        sampler.start([request(8, layout=layout)], way)


def test_a_partial_trajectory_needs_a_layout(sampler: Sampler, way: Trajectory) -> None:
    with pytest.raises(UserError, match=r"Sample 8 has no `layout`, .*use strength 1"):
        sampler.start([request(8, layout=None)], way)


def test_denoising_yields_after_each_step_and_may_be_stopped(
    sampler: Sampler, way: Trajectory
) -> None:
    requests = [request(0), request(1)]
    conditioning, latents = sampler.condition(requests), sampler.start(requests, way)
    steps = sampler.denoise(latents, conditioning, np.ones(2, "f4"), way)
    first = to_numpy(next(steps))
    assert first.shape == (2, *tiny.LATENT)
    assert np.abs(first - latents).max() > 0
    assert len(list(steps)) == len(way.timesteps) - 1


def test_decoding_many_is_decoding_each(sampler: Sampler) -> None:
    latents = np.random.default_rng(0).standard_normal((5, *tiny.LATENT)).astype(np.float32)
    images = sampler.decode(latents)
    assert images.shape == (5, 3, *tiny.IMAGE)
    assert 0 <= images.min() < images.max() <= 1
    np.testing.assert_allclose(images[4:], sampler.decode(latents[4:]), atol=1e-6)


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 7, 100])
def test_images_are_the_same_in_pieces_of_any_size(
    tiny_bundle: Bundle, way: Trajectory, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    requests = [request(i) for i in range(7)]
    whole = Sampler.of(tiny_bundle, CPU, threads=1).sample(requests, way, 7)
    monkeypatch.setattr("synfer_rt.backends.loaded_engines._POSITIONS_PER_CALL", at_once * 8 * 8)
    pieces = Sampler.of(tiny_bundle, CPU, threads=1).sample(requests, way, 7)
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize(
    ("at_once", "count", "batch", "sizes"),
    [
        (4, 8, 8, [4, 4]),
        (4, 6, 6, [3, 3]),
        (4, 7, 6, [3, 3, 3]),
        (100, 7, 3, [3, 3, 3]),
        (1, 2, 2, [1, 1]),
    ],
)
def test_a_batch_is_sampled_in_equal_pieces_and_the_last_is_padded(
    tiny_bundle: Bundle,
    way: Trajectory,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    count: int,
    batch: int,
    sizes: list[int],
) -> None:
    found: list[int] = []
    denoise = Sampler.denoise

    def counting(self: Sampler, latents: Any, *others: Any) -> Any:
        found.append(len(latents))
        return denoise(self, latents, *others)

    monkeypatch.setattr(Sampler, "denoise", counting)
    monkeypatch.setattr("synfer_rt.backends.loaded_engines._POSITIONS_PER_CALL", at_once * 8 * 8)
    sampler = Sampler.of(tiny_bundle, CPU, threads=1)
    samples = sampler.sample([request(i) for i in range(count)], way, batch)
    assert [sample.request.index for sample in samples] == list(range(count))
    assert found == sizes


@pytest.mark.parametrize(
    ("free", "pieces"),
    [(None, [6]), (1 << 40, [6]), (2 * 3 * 4096 * 32 * 32, [3, 3]), (0, [1] * 6)],
)
def test_as_many_images_are_decoded_at_once_as_fit_into_free_memory(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, free: int | None, pieces: list[int]
) -> None:
    monkeypatch.setattr("synfer_rt.backends.loaded_engines.free_memory", lambda backend: free)
    sampler = Sampler.of(tiny_bundle, CPU, threads=1)
    decoder, found = sampler.engines["decoder"], []

    class Counting:
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            found.append(len(inputs["latents"]))
            return decoder.run(inputs)

    monkeypatch.setitem(sampler.engines._loaded, "decoder", Counting())
    assert sampler.decode(np.zeros((6, *tiny.LATENT), np.float32)).shape[0] == 6
    assert found == pieces


def test_encoding_gives_mean_and_log_variance_of_latents(sampler: Sampler) -> None:
    images = np.random.default_rng(0).random((3, 3, *tiny.IMAGE), np.float32)
    mean, logvar = sampler.encode(images)
    assert mean.shape == logvar.shape == (3, *tiny.LATENT)
    assert np.abs(mean - logvar).max() > 0


def test_a_model_without_aus_samples_too(tmp_path: Path, way: Trajectory) -> None:
    sampler = Sampler.of(tiny.build(tmp_path / "b", with_aus=False), CPU, threads=1)
    one, other = sampler.sample([request(0, aus={}), request(0, aus={"AU12": 1.0})], way, 2)
    assert difference(one, other) == 0


@pytest.mark.parametrize("batch", [0, -1, 2.0, "2", True, None])
def test_a_batch_that_is_no_number_of_images_is_refused(
    sampler: Sampler, way: Trajectory, batch: Any
) -> None:
    with pytest.raises(UserError, match="`batch` must be "):
        sampler.sample([request(0)], way, batch)


def test_what_is_no_list_of_requests_is_refused(sampler: Sampler, way: Trajectory) -> None:
    no_lists: list[Any] = [request(0), iter([request(0)]), make_requests(sampler.bundle)]
    for given in no_lists:
        with pytest.raises(UserError, match=r"`requests` must be a list of requests, such as"):
            sampler.sample(given, way, 1)
    eight: Any = 8
    with pytest.raises(UserError, match=r"`trajectory` must be a trajectory, .* got 8"):
        sampler.sample([request(0)], eight, 1)
    words: Any = ["happy"]
    with pytest.raises(UserError, match="`requests` must hold requests, got 'happy'"):
        sampler.sample(words, way, 1)
    strength: Any = 0.05
    with pytest.raises(UserError, match=r"`semantic` must be a semantic guidance, .* got 0\.05"):
        sampler.sample([request(0)], way, 1, strength)


@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "openvino-cpu"])
def test_images_of_8_bits_are_refused_where_floats_are_due(
    tiny_bundle: Bundle, backend: str
) -> None:
    """OpenVINO would take 255 for a pixel 255 times as bright as white."""
    if backend.startswith("openvino"):
        pytest.importorskip("openvino", reason="needs synfer-rt[openvino]")
    sampler = Sampler.of(tiny_bundle, backend, threads=1)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, *tiny.IMAGE), np.uint8)
    for use in (sampler.encode, lambda x: sampler.judge(x, ["happy", "sad"])):
        with pytest.raises(
            UserError, match=r"`images` must be float32, of images in \[0, 1\], got uint8"
        ):
            use(images)
    doubles = sampler.encode(images / 255)[0]
    np.testing.assert_allclose(doubles, sampler.encode((images / 255).astype("f4"))[0], atol=1e-6)


@pytest.mark.parametrize("threads", ["2", 1.5, True, 0, -1])
def test_threads_are_a_whole_number(tiny_bundle: Bundle, threads: Any) -> None:
    with pytest.raises(UserError, match="`threads` must be "):
        _ = Sampler.of(tiny_bundle, "onnxruntime-cpu", threads).engines["decoder"]


def test_a_backend_goes_by_its_name(tiny_bundle: Bundle) -> None:
    wrong: list[Any] = [None, 3, ["onnxruntime-cpu"]]
    for backend in wrong:
        with pytest.raises(UserError, match=r"^`backend` must be a text such as auto"):
            Sampler.of(tiny_bundle, backend)


def test_one_text_is_no_list_of_texts(tiny_bundle: Bundle) -> None:
    with pytest.raises(UserError, match="a list of texts, got the one text 'a face'"):
        tiny_bundle.tokenize("a face")


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_without_guidance_the_images_are_those_of_the_prompt_alone(
    sampler: Sampler, way: Trajectory, scale: float
) -> None:
    """As in diffusers, where a scale up to 1 leaves the unconditional branch out."""
    sad, happy = (replace(request(0), prompt=f"a {word} face") for word in ("sad", "happy"))
    made = sampler.sample([replace(r, guidance=scale) for r in (sad, happy)], way, 2)
    alone = sampler.sample([replace(r, guidance=1.0) for r in (sad, happy)], way, 2)
    assert [s.request.guidance for s in made] == [1.0, 1.0]
    for found, wanted in zip(made, alone, strict=True):
        np.testing.assert_array_equal(found.image, wanted.image)
    assert np.abs(made[0].image.astype(int) - made[1].image).max() > 0


def test_no_requests_give_no_samples(sampler: Sampler, way: Trajectory) -> None:
    assert sampler.sample([], way, 4) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"aus": {"AU12": 1.5}}, r"AU12 must be from 0 to 1, got 1\.5"),
        ({"aus": {"AU99": 1.0}}, r"Unknown action unit 'AU99'; the nearest known is AU9\."),
        ({"label": "hapy"}, "nearest of this model is happy"),
        ({"label": "all"}, "Unknown label 'all'; the nearest of this model is"),
        ({"label": "Happiness"}, "spelt as the bundle spells it, 'happy', got 'Happiness'"),
        ({"guidance": np.nan}, "`guidance` must be from 0 to 1000, got nan"),
        ({"au_scale": np.inf}, "`au_scale` must be from -1000 to 1000, got inf"),
        ({"index": -1}, "`index` must be from 0 to .*, got -1"),
        ({"seed": 2**63}, "`seed` must be from 0 to .*, got 9223372036854775808"),
        ({"guidance": -1.0}, "`guidance` must be from 0 to 1000, got -1"),
        ({"guidance": "3"}, "`guidance` must be a number, got '3'"),
        ({"index": 1.0}, r"`index` must be a whole number .*, got 1\.0"),
        ({"seed": True}, "`seed` must be a whole number .*, got True"),
        ({"aus": ["AU12=1"]}, "`aus` must be a mapping"),
        ({"aus": {"AU12": "0.8"}}, "AU12 must be a number from 0 to 1, got '0.8'"),
        ({"prompt": None}, "`prompt` must be a text, got None"),
        ({"label": 3}, "`label` must be a text, got 3"),
        ({"layout": 0.5}, r"`layout` must be a row of the layout bank or None, got 0\.5"),
    ],
)
def test_what_the_bundle_cannot_make_is_refused_before_anything_runs(
    sampler: Sampler, way: Trajectory, monkeypatch: pytest.MonkeyPatch, changes: dict, said: str
) -> None:
    monkeypatch.setattr(Sampler, "start", lambda *_: pytest.fail("something ran"))
    bad = replace(request(1), **changes)
    with pytest.raises(UserError, match=said):
        sampler.sample([request(0), bad], way, 1)
    with pytest.raises(UserError, match=said):
        sampler.condition([bad])


def test_starts_of_another_shape_are_refused(sampler: Sampler, way: Trajectory) -> None:
    starts = sampler.start([request(0)], way)
    for wrong in (starts[:0], starts[:, :, 1:]):
        with pytest.raises(UserError, match="`starts` must be latents of shape"):
            sampler.sample([request(0)], way, 1, starts=wrong)


def test_an_empty_batch_is_refused(sampler: Sampler, tiny_bundle: Bundle) -> None:
    with pytest.raises(UserError, match="`latents` must be a batch of at least 1"):
        sampler.decode(np.zeros((0, *tiny_bundle.latent.shape), np.float32))


def test_aus_reach_the_model_in_the_order_of_its_vocabulary(
    sampler: Sampler, tiny_bundle: Bundle
) -> None:
    said = to_numpy(sampler.condition([request(0, aus={"AU26": 1.0}, au_scale=2.0)])["au_bias"])
    vector = np.zeros((1, 2, tiny.AUS), np.float32)
    vector[0, 1, facs.OPENGRAPHAU_41.index("AU26")] = 1
    inputs = {
        "tokens": np.zeros((1, 2, tiny.TOKENS), np.int64),
        "aus": vector,
        "au_scale": np.array([2], np.float32),
    }
    expected = open_engine(tiny_bundle, "conditioner", CPU).run(inputs)["au_bias"]
    np.testing.assert_array_equal(said, expected)
