"""The engines of a bundle fit each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.engine_specs import TensorSpec, mismatch
from synfer_rt.errors import UserError
from tests import tiny_bundle as tiny
from tests.caching import with_caching
from tests.damaged_bundles import change


@pytest.mark.parametrize("engine", ["conditioner", "denoiser", "decoder"])
def test_an_engine_that_sampling_needs_must_be_there(copy: Path, engine: str) -> None:
    change(copy, lambda fields: fields["engines"].pop(engine))
    with pytest.raises(UserError, match=f"the engine {engine} is missing"):
        open_bundle(copy)


def drop_au_bias(engines: dict[str, Any]) -> None:
    inputs = engines["denoiser"]["inputs"]
    inputs[:] = [tensor for tensor in inputs if tensor["name"] != "au_bias"]


def ask_for_more(engines: dict[str, Any]) -> None:
    tensor = {"name": "depth", "dtype": "float32", "shape": ["B"]}
    engines["denoiser"]["inputs"].append(tensor)


def shrink_vocabulary(engines: dict[str, Any]) -> None:
    engines["conditioner"]["inputs"][1]["shape"] = ["B", 2, 12]


def forget_the_reusing(engines: dict[str, Any]) -> None:
    del engines["denoiser.reusing"]


def flatten_features(engines: dict[str, Any]) -> None:
    engines["denoiser.storing"]["outputs"][-1]["shape"] = ["B", 16, 1, 1]


def shrink_features(engines: dict[str, Any]) -> None:
    engines["denoiser.reusing"]["inputs"][0]["shape"] = ["B", 2, 4, 1, 1]


def reuse_another_text(engines: dict[str, Any]) -> None:
    tensor = {"name": "text", "dtype": "float32", "shape": ["B", 2, 9]}
    engines["denoiser.reusing"]["inputs"].append(tensor)


def freeze_batch(engines: dict[str, Any]) -> None:
    engines["decoder"]["inputs"][0]["shape"][0] = 1


def forget_a_class(engines: dict[str, Any]) -> None:
    engines["classifier.small"]["label_scheme"] = "hsemotion-7"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop_au_bias, "denoiser has no input au_bias"),
        (ask_for_more, "denoiser has the unknown input depth"),
        (shrink_vocabulary, r"conditioner has no input aus float32 \['B', 2, 41\]"),
        (freeze_batch, "decoder has no input latents"),
        (forget_a_class, r"no output probabilities float32 \['B', 7\]"),
    ],
)
def test_engines_that_do_not_fit_each_other_are_refused(
    copy: Path, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    change(copy, lambda fields: edit(fields["engines"]))
    with pytest.raises(UserError, match=message):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (forget_the_reusing, "the engine denoiser.reusing is missing"),
        (flatten_features, r"denoiser.storing has no output features float32 \['B', 2, 'c'"),
        (shrink_features, r"denoiser.reusing has no input features .* \['B', 2, 8, 1, 1\]"),
        (reuse_another_text, "denoiser.reusing has the unknown input text"),
    ],
)
def test_engines_that_cache_features_fit_each_other(
    copy: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    caching = with_caching(open_bundle(copy), tmp_path / "caching").path
    assert open_bundle(caching).denoisers == ("denoiser", "denoiser.storing", "denoiser.reusing")
    change(caching, lambda fields: edit(fields["engines"]))
    with pytest.raises(UserError, match=message):
        open_bundle(caching)


GUIDED = {
    "clean": [2],
    "target": ["B", 8],
    "strength": ["B"],
}
CONDITIONING = {"text": ["B", 2, tiny.WIDTH], "au_bias": ["B", 2, tiny.WIDTH]}
LATENTS, HISTORY = ["B", *tiny.LATENT], ["B", 3, *tiny.LATENT]
IMAGES = ["B", 3, *tiny.IMAGE]
TEXT_GUIDE = (
    {"latents": LATENTS, "timestep": [], **GUIDED, **CONDITIONING},
    {"guided_text": CONDITIONING["text"]},
)
OPTIONAL: dict[str, tuple[dict[str, list], dict[str, list]]] = {
    "feranno": ({"latents": LATENTS}, {"probabilities": ["B", 7]}),
    "guide.text": TEXT_GUIDE,
    "guide.text-latent": TEXT_GUIDE,
    "guide.latent": (
        {
            "latents": LATENTS,
            "prediction": LATENTS,
            "next_latents": LATENTS,
            "next_history": HISTORY,
            "coefficients": [4, 5],
            **GUIDED,
        },
        {"guided_latents": LATENTS, "guided_history": HISTORY},
    ),
    "au-reader": ({"images": IMAGES}, {"aus": ["B", tiny.AUS]}),
}
"""Inputs and outputs of the engines that a bundle may have."""


def declared(**shapes: list) -> list[dict[str, Any]]:
    return [{"name": n, "dtype": "float32", "shape": shape} for n, shape in shapes.items()]


def add_optional(directory: Path) -> None:
    """Declare every optional engine; the file that stands for it is not opened by the checks."""

    def edit(fields: dict[str, Any]) -> None:
        for name, (inputs, outputs) in OPTIONAL.items():
            fields["engines"][name] = {
                **fields["engines"]["decoder"],
                "inputs": declared(**inputs),
                "outputs": declared(**outputs),
                **({"label_scheme": "raf-db"} if name == "feranno" else {}),
            }

    change(directory, edit)


def test_feranno_guides_and_au_reader_may_be_there(copy: Path) -> None:
    add_optional(copy)
    engines = open_bundle(copy).engines
    assert set(OPTIONAL) < set(engines)
    assert engines["feranno"].label_scheme == "raf-db"
    assert engines["au-reader"].label_scheme is None


@pytest.mark.parametrize(
    ("engine", "shapes", "message"),
    [
        ("feranno", {"label_scheme": "ekman"}, "Unknown label scheme 'ekman'"),
        ("feranno", {"inputs": declared(images=IMAGES)}, "feranno has no input latents"),
        (
            "guide.text",
            {"inputs": declared(**TEXT_GUIDE[0], depth=["B"])},
            "guide.text has the unknown input depth",
        ),
        (
            "guide.text-latent",
            {"outputs": declared(text=["B"])},
            r"guide.text-latent has no output g",
        ),
        ("guide.latent", {"outputs": declared(guided_latents=LATENTS)}, "output guided_history"),
        ("au-reader", {"outputs": declared(aus=["B", 12])}, r"aus float32 \['B', 41\]"),
    ],
)
def test_optional_engines_that_do_not_fit_are_refused(
    copy: Path, engine: str, shapes: dict[str, Any], message: str
) -> None:
    add_optional(copy)
    change(copy, lambda fields: fields["engines"][engine].update(shapes))
    with pytest.raises(UserError, match=message):
        open_bundle(copy)


def test_a_guide_aims_at_the_labels_of_the_bundle(copy: Path) -> None:
    add_optional(copy)
    change(copy, lambda fields: fields.update(label_scheme="affectnet-7"))
    with pytest.raises(UserError, match=r"no input target float32 \['B', 7\]"):
        open_bundle(copy)


def test_a_model_without_aus_has_no_au_reader(tmp_path: Path) -> None:
    path = tiny.build(tmp_path / "plain", with_aus=False).path
    reader = {"inputs": declared(images=IMAGES), "outputs": declared(aus=["B", 0])}

    def edit(fields: dict[str, Any]) -> None:
        fields["engines"]["au-reader"] = {**fields["engines"]["decoder"], **reader}

    change(path, edit)
    with pytest.raises(UserError, match="au-reader reads AUs, but this model has none"):
        open_bundle(path)


def test_an_unknown_engine_is_refused(copy: Path) -> None:
    change(copy, lambda f: f["engines"].update(upscaler=f["engines"]["decoder"]))
    with pytest.raises(UserError, match="unknown engine upscaler"):
        open_bundle(copy)


def test_a_model_without_aus_has_no_au_inputs(tmp_path: Path) -> None:
    bundle = tiny.build(tmp_path / "plain", with_aus=False)
    assert bundle.au_names == ()
    assert [tensor.name for tensor in bundle.engines["conditioner"].inputs] == ["tokens"]


def test_a_guide_through_a_unet_that_embeds_guidance_takes_the_scale(guided_bundle: Bundle) -> None:
    sizes = guided_bundle.latent.shape, guided_bundle.image_size, guided_bundle.max_length
    numbers = len(guided_bundle.au_names), len(guided_bundle.classes)
    engines = dict(guided_bundle.engines)
    assert mismatch(engines, *sizes, *numbers) is None
    said = "guide.text-latent has no input guidance float32 ['B']"
    assert said in (mismatch(engines, *sizes, *numbers, True) or "")
    scale = TensorSpec("guidance", "float32", ("B",))
    guide = engines["guide.text-latent"]
    engines[guide.name] = replace(guide, inputs=(*guide.inputs, scale))
    assert mismatch(engines, *sizes, *numbers, True) is None


def test_the_guidance_embedding_is_true_or_false(copy: Path) -> None:
    change(copy, lambda fields: fields.update(guidance_embedding="yes"))
    with pytest.raises(UserError, match="guidance_embedding 'yes' is not true or false"):
        open_bundle(copy)
