"""The memory that engines are expected to need, against sums by hand for SD 1.5 at 512 pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from synfer_rt.backends import footprint, memory
from synfer_rt.backends.footprint import bytes_per_image, share
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle, EngineSpec
from synfer_rt.bundle.cuda import CudaSpec
from synfer_rt.bundle.engine_specs import TensorSpec

P, PIXELS = 64 * 64, 512 * 512
GIB = 1 << 30


def spec(name: str) -> EngineSpec:
    text = TensorSpec("text", "float32", ("B", 2, 77, 768))
    return EngineSpec(name, f"{name}.onnx", "fp16", 21, (), (text,))


def needed(name: str, *, half: bool = False, fused: bool = False) -> int:
    return bytes_per_image(spec(name), P, PIXELS, half=half, fused=fused)


@pytest.mark.parametrize(
    ("engine", "half", "fused", "by_hand"),
    [
        # Two branches of 17 * 320 values at 4096 positions, in 2 bytes, doubled.
        ("denoiser", True, True, 178_257_920),
        # One branch of it.
        ("denoiser.conditional", True, True, 89_128_960),
        ("denoiser.distilled", True, True, 89_128_960),
        # The same in 4 bytes, and 8 heads' scores and probabilities [4096, 4096] of both branches.
        ("denoiser", False, False, 356_515_840 + 4_294_967_296),
        # 1024 values in 2 bytes and 100 bytes for each of 262,144 pixels, doubled.
        ("decoder", True, True, 1_126_170_624),
        # In 4 bytes, and one head's scores and probabilities.
        ("encoder", False, False, 2_199_912_448 + 268_435_456),
        ("feranno", True, True, 89_128_960),
        # 130,500 values at 4096 positions and 7 times 8 heads' [4096, 4096], in 4 bytes, doubled.
        ("guide.text-latent", False, False, 4_276_224_000 + 7_516_192_768),
        # And 7000 values for each pixel.
        ("guide.text", False, False, 4_276_224_000 + 7_516_192_768 + 14_680_064_000),
        ("guide.latent", False, False, 178_257_920),
        # 16 times the text embedding of 2 x 77 x 768.
        ("conditioner", True, True, 7_569_408),
        # 5 * 64 * 112 * 112 values and 16 a pixel.
        ("classifier.x", True, True, 16_056_320 + 16_777_216),
    ],
)
def test_an_image_needs_what_its_layers_hold(
    engine: str, half: bool, fused: bool, by_hand: int
) -> None:
    assert needed(engine, half=half, fused=fused) == by_hand


def test_fused_attention_grows_with_the_positions_and_plain_attention_with_their_square() -> None:
    fused, plain = (
        [bytes_per_image(spec("denoiser"), n, 64 * n, half=True, fused=f) for n in (4096, 16384)]
        for f in (True, False)
    )
    assert fused[1] == 4 * fused[0]
    assert plain[1] - fused[1] == 16 * (plain[0] - fused[0])


def test_a_bundles_engines_take_no_more_than_there_is() -> None:
    others = ["encoder", "conditioner", "feranno", "au-reader", "classifier.a", "classifier.b"]
    assert sum(map(share, ["denoiser", "decoder", *others])) <= 1
    both = ["denoiser", "denoiser.conditional", "decoder", *others[:5]]
    assert sum(map(share, both)) <= 1
    a_piece = share("guide.text") / needed("guide.text")
    with_guide = share("guide.text") + a_piece * needed("denoiser", half=True, fused=True)
    assert with_guide + sum(map(share, ["decoder", *others])) <= 1


def test_engines_that_cache_features_divide_the_denoisers_part() -> None:
    both = ["denoiser.storing", "denoiser.reusing"]
    assert sum(map(share, both)) == share("denoiser")


@pytest.mark.parametrize("size", [(64, 64), ("h", "w")])
def test_cached_features_are_float32(size: tuple[int, int] | tuple[str, str]) -> None:
    """2 * 320 values at 4096 positions in 4 bytes, doubled, more than the denoiser."""
    features = TensorSpec("features", "float32", ("B", 2, 320, *size))
    storing = replace(spec("denoiser.storing"), outputs=(features,))
    reusing = replace(spec("denoiser.reusing"), inputs=(features,))
    for one in (storing, reusing):
        found = bytes_per_image(one, 4096, 262_144, half=True, fused=True)
        assert found == 178_257_920 + 20_971_520


def test_denoisers_take_the_same_pieces() -> None:
    two, one = (
        share(name) / needed(name, half=True, fused=True)
        for name in ("denoiser", "denoiser.conditional")
    )
    assert one == two


def on_a_gpu(bundle: Bundle, free: int | None, monkeypatch: pytest.MonkeyPatch) -> LoadedEngines:
    """Engines of SD 1.5's size on onnxruntime-cuda; none is loaded."""
    monkeypatch.setattr("synfer_rt.backends.loaded_engines.free_memory", lambda backend: free)
    latent = replace(bundle.latent, height=64, width=64)
    engines = LoadedEngines(
        replace(bundle, latent=latent, image_size=(512, 512)), "onnxruntime-cpu"
    )
    engines.backend = "onnxruntime-cuda"
    return engines


def in_half(bundle: Bundle) -> Bundle:
    cuda = {
        name: CudaSpec(name, f"{name}.cuda.onnx", "fp16", (), (), "", 1) for name in bundle.engines
    }
    return replace(bundle, cuda=cuda)


@pytest.mark.parametrize(("gigabytes", "pieces"), [(130, 1), (75, 2), (22, 6), (6, 20)])
def test_a_batch_of_256_at_512_pixels_goes_in_pieces_that_fit(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, gigabytes: int, pieces: int
) -> None:
    engines = on_a_gpu(in_half(tiny_bundle), gigabytes * GIB, monkeypatch)
    size = engines.piece_size(256, "conditioner", "denoiser")
    assert -(-256 // size) == pieces
    used = size * needed("denoiser", half=True, fused=True)
    decoded = engines.piece_size(size, "decoder")
    assert decoded <= 16  # images of 512x512 pixels fill a GPU
    used += decoded * needed("decoder", half=True, fused=True)
    assert used <= gigabytes * GIB * 3 / 4


def test_plain_attention_makes_pieces_smaller(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = on_a_gpu(tiny_bundle, 130 * GIB, monkeypatch)
    assert plain.piece_size(256, "denoiser") == 11
    none = on_a_gpu(tiny_bundle, None, monkeypatch)
    assert none.piece_size(256, "denoiser") == 256


def test_one_image_is_tried_however_little_memory_is_free(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert on_a_gpu(tiny_bundle, 0, monkeypatch).piece_size(8, "decoder") == 1


def test_a_small_model_goes_whole_through_a_large_gpu(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """synfer-mini's size: 256 positions, 64x64 pixels."""
    engines = on_a_gpu(in_half(tiny_bundle), 130 * GIB, monkeypatch)
    latent = replace(tiny_bundle.latent, height=16, width=16)
    engines.bundle = replace(engines.bundle, latent=latent, image_size=(64, 64))
    assert engines.piece_size(256, *tiny_bundle.engines) == 256


class Driver:
    """The two libraries of NVIDIA's driver, with one GPU; the function `broken` fails."""

    def __init__(self, free: int, total: int, broken: str = "") -> None:
        self._free, self._total, self._broken = free, total, broken

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*given: Any) -> int:
            if name == "nvmlDeviceGetMemoryInfo":
                given[1]._obj.free = self._free
            if name == "cuDeviceTotalMem_v2":
                given[0]._obj.value = self._total
            return int(name == self._broken)

        return call


@pytest.mark.parametrize(
    ("driver", "free"),
    [
        (Driver(70 * GIB, 80 * GIB), 70 * GIB),
        (Driver(70 * GIB, 10 * GIB), 10 * GIB),  # a part of a GPU
        (Driver(70 * GIB, 80 * GIB, "nvmlInit_v2"), memory.ASSUMED),
        (Driver(70 * GIB, 80 * GIB, "cuInit"), memory.ASSUMED),
    ],
)
def test_the_driver_says_what_is_free(
    monkeypatch: pytest.MonkeyPatch, driver: Driver, free: int
) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: driver)
    assert memory.free_memory("onnxruntime-cuda") == free


def test_without_a_driver_a_small_card_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(memory.ctypes, "CDLL", none)
    assert memory.free_memory("onnxruntime-cuda") == memory.ASSUMED


def test_the_widths_are_those_of_stable_diffusion() -> None:
    assert (footprint.WIDTH, footprint.HEADS, footprint.branches("denoiser")) == (320, 8, 2)
