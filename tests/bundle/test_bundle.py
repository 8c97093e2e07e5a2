"""A bundle is checked wholly before anything is loaded; every fault is one sentence."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt import engines
from synfer_rt.bundle import MANIFEST, Bundle, open_bundle, write_manifest
from synfer_rt.errors import UserError
from tests import tiny_bundle as tiny


@pytest.fixture
def copy(tiny_bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle of one's own to damage."""
    return Path(shutil.copytree(tiny_bundle_path, tmp_path / "copy"))


def change(directory: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the manifest in place."""
    fields = json.loads((directory / MANIFEST).read_text())
    edit(fields)
    (directory / MANIFEST).write_text(json.dumps(fields))


def rehash(directory: Path, name: str) -> None:
    """Make the manifest agree with a changed file."""
    data = (directory / name).read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    change(directory, lambda fields: fields["files"].update({name: entry}))


def test_a_bundle_says_what_it_is(tiny_bundle: Bundle) -> None:
    assert tiny_bundle.name == "synfer-tiny"
    assert tiny_bundle.image_size == tiny.IMAGE
    assert tiny_bundle.latent.shape == tiny.LATENT
    assert len(tiny_bundle.au_names) == tiny.AUS
    assert tiny_bundle.classes[:2] == ("neutral", "happy")
    assert tiny_bundle.classifiers == ("classifier.small",)
    assert tiny_bundle.defaults.steps == 4
    assert tiny_bundle.engines["decoder"].outputs[0].shape == ("B", 3, 32, 32)


def test_its_hash_is_that_of_what_a_sample_depends_on(tiny_bundle: Bundle, copy: Path) -> None:
    def measure(fields: dict[str, Any]) -> None:
        fields["engines"]["decoder"]["parity_openvino"] = None
        fields["engines"]["decoder"]["parity"]["max_relative_error"] = 1e-5

    change(copy, measure)
    assert (copy / MANIFEST).read_bytes() != (tiny_bundle.path / MANIFEST).read_bytes()
    assert open_bundle(copy).bundle_hash == tiny_bundle.bundle_hash
    change(copy, lambda fields: fields["engines"]["decoder"].update(precision="fp16"))
    assert open_bundle(copy).bundle_hash != tiny_bundle.bundle_hash


def add_plan(directory: Path, data: bytes) -> None:
    (directory / "tensorrt-rtx").mkdir(exist_ok=True)
    (directory / "tensorrt-rtx/decoder.plan").write_bytes(data)
    source = hashlib.sha256((directory / "decoder.onnx").read_bytes()).hexdigest()
    plan = {
        "file": "tensorrt-rtx/decoder.plan",
        "version": "1.7.1",
        "compute_capabilities": ["sm90"],
        "profiles": {"latents": {"min": [1, 4, 8, 8], "opt": [8, 4, 8, 8], "max": [32, 4, 8, 8]}},
        "precision": "fp16",
        "source_sha256": source,
        "parity": None,
    }
    change(directory, lambda fields: fields.update(plans={"tensorrt-rtx": {"decoder": plan}}))
    rehash(directory, "tensorrt-rtx/decoder.plan")


def test_its_hash_does_not_depend_on_a_plans_bytes(tiny_bundle: Bundle, copy: Path) -> None:
    former = set()
    for data in (b"one build", b"another build"):
        add_plan(copy, data)
        bundle = open_bundle(copy)
        assert bundle.plans["tensorrt-rtx"]["decoder"].file == "tensorrt-rtx/decoder.plan"
        assert bundle.bundle_hash == tiny_bundle.bundle_hash
        former.add(bundle.former_hash)
    assert len(former) == 2


def test_its_hash_depends_on_every_engines_bytes(tiny_bundle: Bundle, copy: Path) -> None:
    with (copy / "denoiser.onnx").open("ab") as file:
        file.write(b"\0")
    rehash(copy, "denoiser.onnx")
    assert open_bundle(copy).bundle_hash != tiny_bundle.bundle_hash


def test_its_former_hash_is_that_of_the_manifests_bytes(copy: Path) -> None:
    fields = json.loads((copy / MANIFEST).read_text())
    for engine in fields["engines"].values():
        engine.pop("parity_openvino", None)
    text = json.dumps(fields, indent=1, ensure_ascii=False)
    (copy / MANIFEST).write_text(text, encoding="utf-8")
    change(copy, lambda f: f["engines"]["decoder"].update(parity_openvino=None))
    change(copy, lambda f: f.update(annotators_know="rendered faces"))
    assert open_bundle(copy).former_hash == hashlib.sha256(text.encode()).hexdigest()


def test_a_changed_manifest_changes_the_hash(tiny_bundle: Bundle, copy: Path) -> None:
    change(copy, lambda fields: fields.update(description="another"))
    assert open_bundle(copy).bundle_hash != tiny_bundle.bundle_hash


def test_no_path_means_the_installed_bundle(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "default_bundle", lambda: tiny_bundle.path)
    assert open_bundle(None).bundle_hash == tiny_bundle.bundle_hash


def test_a_relative_path_holds_wherever_the_program_goes(
    copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(copy.parent)
    bundle = open_bundle(copy.name)
    monkeypatch.chdir(tmp_path)
    assert len(bundle.layouts) == bundle.layout_count


def test_a_damaged_installed_bundle_is_cured_by_reinstalling(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "default_bundle", lambda: copy)
    (copy / "decoder.onnx").unlink()
    with pytest.raises(UserError, match="reinstall the package"):
        open_bundle(None)


def test_token_ids_are_padded_and_framed(tiny_bundle: Bundle) -> None:
    ids = tiny_bundle.tokenize(["a photo of a young woman, short hair", ""])
    assert ids.shape == (2, tiny.TOKENS)
    assert ids.dtype == np.int64
    assert ids[1].tolist() == [2, 3] + [0] * (tiny.TOKENS - 2)
    assert ids[0, 0] == 2
    assert 1 not in ids[0]


def test_a_long_prompt_is_cut(tiny_bundle: Bundle) -> None:
    ids = tiny_bundle.tokenize(["a photo of " * 100])
    assert ids.shape == (1, tiny.TOKENS)
    assert ids[0, -1] == 3


def test_the_layout_bank_is_latents_and_words(tiny_bundle: Bundle) -> None:
    layouts = tiny_bundle.layouts
    assert layouts.latents.shape == (6, *tiny.LATENT)
    assert layouts.latents.dtype == np.float32
    assert (layouts.gender[1], layouts.ancestry[2]) == ("male", "European")
    assert len(layouts) == tiny_bundle.layout_count == 6


def test_a_layout_bank_that_pickles_is_not_loaded(copy: Path) -> None:
    words = np.array(["young"] * 6, dtype=object)
    latents = np.zeros((6, *tiny.LATENT), np.float16)
    np.savez(copy / "layouts.npz", latents=latents, age=words, gender=words, ancestry=words)
    rehash(copy, "layouts.npz")
    with pytest.raises(UserError, match=r"layouts.npz is not a layout bank .*build-engines"):
        _ = open_bundle(copy).layouts


def test_a_layout_bank_that_is_damaged_within_is_refused(copy: Path) -> None:
    file, words = copy / "layouts.npz", np.array(["young"] * 6)
    latents = np.zeros((6, *tiny.LATENT), np.float16)
    np.savez_compressed(file, latents=latents, age=words, gender=words, ancestry=words)
    content = bytearray(file.read_bytes())
    begin = content.index(b"latents.npy") + len(b"latents.npy") + 20  # behind zip's own fields
    content[begin : begin + 8] = b"\xff" * 8
    file.write_bytes(content)
    rehash(copy, "layouts.npz")
    with pytest.raises(UserError, match=r"layouts.npz is not a layout bank .*build-engines"):
        _ = open_bundle(copy).layouts


def test_a_layout_bank_of_another_shape_is_refused(copy: Path) -> None:
    words = np.array(["young"] * 6)
    latents = np.zeros((6, 4, 9, 9), np.float16)
    np.savez(copy / "layouts.npz", latents=latents, age=words, gender=words, ancestry=words)
    rehash(copy, "layouts.npz")
    with pytest.raises(UserError, match=r"holds \(6, 4, 9, 9\) instead of \(6, 4, 8, 8\)"):
        _ = open_bundle(copy).layouts


def test_a_bundle_without_layouts_says_how_to_start(copy: Path) -> None:
    def edit(fields: dict[str, Any]) -> None:
        fields["layouts"] = None
        fields["defaults"]["layout"] = "none"

    change(copy, edit)
    with pytest.raises(UserError, match='start from noise with `layout="none"`'):
        _ = open_bundle(copy).layouts


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '"bundle"'])
def test_a_manifest_that_is_none_is_named(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=r"bundle.json .*build-engines"):
        open_bundle(copy)


@pytest.mark.parametrize("key", ["schedule", "engines", "files", "layouts", "source", "exporter"])
def test_a_missing_field_is_named(copy: Path, key: str) -> None:
    change(copy, lambda fields: fields.pop(key))
    with pytest.raises(UserError, match=f"lacks '{key}'"):
        open_bundle(copy)


def test_a_file_that_is_used_but_not_hashed_is_refused(copy: Path) -> None:
    change(copy, lambda fields: fields["files"].pop("tokenizer.json"))
    with pytest.raises(UserError, match=r"no hash of tokenizer.json"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["../stranger", "/etc/hostname"])
def test_a_path_outside_the_bundle_is_refused(copy: Path, name: str) -> None:
    (copy.parent / "stranger").write_text("not yours")
    change(copy, lambda fields: fields["files"].update({name: {"sha256": "", "bytes": 0}}))
    with pytest.raises(UserError, match=r"outside .*do not use this bundle"):
        open_bundle(copy)


def test_a_link_that_leaves_the_bundle_is_refused(copy: Path) -> None:
    outside = copy.parent / "decoder.onnx"
    shutil.move(copy / "decoder.onnx", outside)
    (copy / "decoder.onnx").symlink_to(outside)
    with pytest.raises(UserError, match="outside"):
        open_bundle(copy)


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


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("prediction_type", "sample", "unknown prediction type 'sample'"),
        ("history_slots", 2, "2 history slots instead of 3"),
        ("label_scheme", "ekman", "Unknown label scheme 'ekman'"),
        ("au_vocabulary", "facs", "Unknown AU vocabulary 'facs'"),
        ("layouts", None, "there is none"),
    ],
)
def test_a_field_with_an_impossible_value_is_refused(
    copy: Path, key: str, value: object, message: str
) -> None:
    change(copy, lambda fields: fields.update({key: value}))
    with pytest.raises(UserError, match=message):
        open_bundle(copy)


@pytest.mark.parametrize(
    "edit",
    [
        lambda fields: fields.pop("history_slots"),
        lambda fields: fields["tokenizer"].pop("file"),
        lambda fields: fields["layouts"].pop("count"),
        lambda fields: fields.update(files=None),
        lambda fields: fields.update(files=[]),
        lambda fields: fields["schedule"].update(num_train_timesteps=0),
        lambda fields: fields["defaults"].update(solver=["ddim"]),
        lambda fields: fields["defaults"].update(steps="16"),
        lambda fields: fields["defaults"].update(guidance=None),
    ],
)
def test_a_manifest_of_another_shape_is_refused(
    copy: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    change(copy, edit)
    with pytest.raises(UserError, match="build the bundle again"):
        open_bundle(copy)


def test_an_au_vocabulary_may_be_a_list_of_names(copy: Path) -> None:
    names = [f"AU{n}" for n in range(1, tiny.AUS + 1)]
    change(copy, lambda fields: fields.update(au_vocabulary=names))
    assert open_bundle(copy).au_names == tuple(names)


def test_a_model_without_aus_has_no_au_inputs(tmp_path: Path) -> None:
    bundle = tiny.build(tmp_path / "plain", with_aus=False)
    assert bundle.au_names == ()
    assert [tensor.name for tensor in bundle.engines["conditioner"].inputs] == ["tokens"]


def test_a_bundle_without_plans_has_none(tiny_bundle: Bundle) -> None:
    assert tiny_bundle.plans == {}


def test_plans_are_found_by_target_and_engine(copy: Path) -> None:
    bundle = tiny.add_plans(open_bundle(copy), "tensorrt-rtx", "1.7.1")
    plan = tiny.add_plans(bundle, "tensorrt", "10.1").plans["tensorrt-rtx"]["denoiser"]
    assert plan.file == "tensorrt-rtx/denoiser.plan"
    assert plan.version == "1.7.1"
    assert plan.compute_capabilities == ("sm80", "sm89")
    assert plan.batches == (1, 4, 8)
    assert plan.source_sha256 == bundle.manifest["files"]["denoiser.onnx"]["sha256"]


def test_writing_a_manifest_hashes_every_file(copy: Path) -> None:
    (copy / "denoiser.onnx.data").write_bytes(b"weights")
    (copy / "README.md").write_text("a model card")
    fields = json.loads((copy / MANIFEST).read_text())
    del fields["format"], fields["files"]
    files = write_manifest(copy, fields).manifest["files"]
    assert sorted(files) == [
        "README.md", "classifier.small.onnx", "conditioner.onnx", "decoder.onnx", "denoiser.onnx",
        "denoiser.onnx.data", "encoder.onnx", "layouts.npz", "tokenizer.json",
    ]  # fmt: skip
    assert files["denoiser.onnx.data"]["bytes"] == 7


def test_a_bad_manifest_is_not_written(copy: Path) -> None:
    before = (copy / MANIFEST).read_bytes()
    fields = json.loads(before) | {"prediction_type": "sample"}
    with pytest.raises(UserError, match="unknown prediction type"):
        write_manifest(copy, fields)
    assert (copy / MANIFEST).read_bytes() == before
    assert not [file for file in copy.iterdir() if file.name.startswith(MANIFEST + ".")]


def test_a_bundle_is_immutable(tiny_bundle: Bundle) -> None:
    with pytest.raises(AttributeError):
        tiny_bundle.name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    assert replace(tiny_bundle, name="other").name == "other"
