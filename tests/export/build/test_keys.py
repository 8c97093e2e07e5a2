"""Build keys: what an engine depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

from synfer_rt.bundle import Bundle
from synfer_rt.export.build.keys import file_hashes
from synfer_rt.export.build.whole_bundle import Options, Source, build_keys

DENOISERS = {"denoiser", "denoiser.conditional"}
CACHING = {"denoiser.storing", "denoiser.reusing"}


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        ("unet/config.json", {"conditioner", *DENOISERS}),
        ("text_encoder/config.json", {"conditioner"}),
        ("vae/config.json", {"decoder", "encoder"}),
        ("au_adapter.safetensors", {"conditioner", *DENOISERS}),
    ],
)
def test_an_engine_depends_on_its_own_files(
    mini: tuple[Source, Path], mini_bundle: Bundle, file: str, stale: set[str]
) -> None:
    source, _ = mini
    keys = {name: entry["build_key"] for name, entry in mini_bundle.manifest["engines"].items()}
    path = source.directory / file
    if path.suffix == ".json":
        path.write_text(path.read_text() + "\n")
    else:
        from safetensors.torch import load_file, save_file

        save_file({name: tensor * 2 for name, tensor in load_file(path).items()}, path)
    assert {n for n, key in keys_of(source).items() if key != keys[n]} == stale


def keys_of(source: Source, options: Options | None = None) -> dict[str, str]:
    checkpoint = source.read()
    hashes = file_hashes(checkpoint)
    return build_keys(checkpoint, source, options or Options(), 24, hashes)


def test_only_engines_that_cache_features_depend_on_the_depth(plain_checkpoint: Path) -> None:
    source = Source(plain_checkpoint)
    keys, one = keys_of(source), keys_of(replace(source, cache_depth=1))
    assert one.keys() - keys.keys() == CACHING and keys.items() <= one.items()
    assert one["denoiser.storing"] != one["denoiser.reusing"]


def test_another_depth_is_another_engine(sd_checkpoint: Path) -> None:
    one, two = (keys_of(Source(sd_checkpoint, cache_depth=depth)) for depth in (1, 2))
    assert {name for name in one if one[name] != two[name]} == CACHING


def test_precision_and_sizes_are_part_of_the_keys(mini: tuple[Source, Path]) -> None:
    source, _ = mini
    keys = keys_of(source)
    half = keys_of(source, Options("fp16"))
    assert not set(keys.values()) & set(half.values())
    larger, free = (
        keys_of(replace(source, **size)) for size in ({"resolution": (32, 16)}, {"sizes": (8, 32)})
    )
    for other in (larger, free):  # the conditioner sees neither latents nor images
        assert {name for name in keys if keys[name] == other[name]} == {"conditioner"}
    assert free["denoiser"] != larger["denoiser"]
