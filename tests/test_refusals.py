"""A bundle that is not what it says, or not for what is here, is refused before an engine loads.

One table: what was done to the bundle, and the words by which the sentence is known.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.backends import (
    BackendStatus,
    choice,
    choose,
    onnxruntime,
    open_engine,
    openvino,
    tensorrt,
)
from synfer_rt.bundle import MANIFEST, open_bundle
from synfer_rt.errors import UserError
from tests import tiny_bundle as tiny

RTX = "tensorrt-rtx-cuda"
PLAN = "tensorrt-rtx/denoiser.plan"
HERE = ("1.7.1", "sm89")
"""The library and the GPU that the tests pretend to have."""

Fields = dict[str, Any]


@pytest.fixture
def copy(tiny_bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle with plans that fit what is here, to damage."""
    return tiny.add_plans(
        open_bundle(shutil.copytree(tiny_bundle_path, tmp_path / "copy")), version=HERE[0]
    ).path


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine with a GPU and every library, and what is loaded on it."""
    names: list[str] = []

    def load(bundle: object, name: str, *_: object) -> None:
        names.append(name)

    def works(name: str) -> BackendStatus:
        return BackendStatus(name, True, "works", "")

    def open_plan(bundle: Any, name: str, backend: str, *_: object) -> None:
        tensorrt.checked_plan(bundle, name, backend)
        names.append(name)

    monkeypatch.setattr(onnxruntime, "open_engine", load)
    monkeypatch.setattr(openvino, "open_engine", load)
    monkeypatch.setattr(tensorrt, "open_engine", open_plan)
    monkeypatch.setattr(tensorrt, "_here", lambda target: HERE)
    monkeypatch.setattr(choice, "status", works)
    return names


def start(directory: Path, backend: str) -> None:
    """What `synfer-rt sample` does before the first image."""
    bundle = open_bundle(directory)
    chosen, _ = choose(backend, bundle)
    for name in ("conditioner", "denoiser", "decoder"):
        open_engine(bundle, name, chosen)


def flip(directory: Path, name: str) -> None:
    data = bytearray((directory / name).read_bytes())
    data[len(data) // 2] ^= 1
    (directory / name).write_bytes(data)


def cut(directory: Path, name: str) -> None:
    data = (directory / name).read_bytes()
    (directory / name).write_bytes(data[: len(data) // 2])


def drop(directory: Path, name: str) -> None:
    (directory / name).unlink()


def edit(change: Callable[[Fields], object]) -> Callable[[Path], None]:
    def edited(directory: Path) -> None:
        fields = json.loads((directory / MANIFEST).read_text())
        change(fields)
        (directory / MANIFEST).write_text(json.dumps(fields))

    return edited


def edit_plan(change: Callable[[Fields], object]) -> Callable[[Path], None]:
    return edit(lambda fields: change(fields["plans"]["tensorrt-rtx"]["denoiser"]))


def profile(change: Callable[[Fields], object]) -> Callable[[Path], None]:
    return edit_plan(lambda plan: change(plan["profiles"]))


def another_graph(directory: Path) -> None:
    """The denoiser was exported again, hashes and all, but not compiled."""
    file = directory / "denoiser.onnx"
    file.write_bytes(file.read_bytes() + b"\x00")
    entry = {
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "bytes": file.stat().st_size,
    }
    edit(lambda fields: fields["files"].update({"denoiser.onnx": entry}))(directory)


def every_batch(profiles: Fields, key: str, batch: int) -> None:
    for name, shapes in profiles.items():
        if name not in ("timestep", "coefficients"):
            shapes[key][0] = batch


CASES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "engine altered": (
        lambda d: flip(d, "denoiser.onnx"), "auto", r"denoiser\.onnx was altered .*SHA-256"),
    "weights of the layouts altered": (
        lambda d: flip(d, "layouts.npz"), "auto", r"layouts\.npz was altered"),
    "plan altered": (lambda d: flip(d, PLAN), "auto", r"denoiser\.plan was altered"),
    "engine truncated": (
        lambda d: cut(d, "decoder.onnx"), "auto", r"decoder\.onnx has \d+ bytes instead of \d+"),
    "plan truncated": (lambda d: cut(d, PLAN), "auto", r"denoiser\.plan has \d+ bytes instead of"),
    "manifest truncated": (lambda d: cut(d, MANIFEST), "auto", r"bundle\.json cannot be read"),
    "manifest nested without end": (
        lambda d: (d / MANIFEST).write_text("[" * 100_000), "auto", r"bundle\.json cannot be read"),
    "more timesteps than memory": (
        edit(lambda f: f["schedule"].update(num_train_timesteps=10**14)), "auto",
        r"bundle\.json cannot be read"),
    "engine missing": (lambda d: drop(d, "decoder.onnx"), "auto",
        r"decoder\.onnx is missing; .*build-engines"),
    "plan missing": (lambda d: drop(d, PLAN), "auto", r"denoiser\.plan is missing"),
    "a number that is none": (
        edit(lambda f: f["defaults"].update(guidance=float("nan"))), "auto",
        r"bundle\.json cannot be read \(NaN is not a JSON number\); build"),
    "a number without end": (
        lambda d: (d / MANIFEST).write_text(
            (d / MANIFEST).read_text().replace('"au_scale": 1.0', '"au_scale": 1e999')), "auto",
        r"bundle\.json cannot be read \(1e999 is not a JSON number\)"),
    "fewer steps than none": (
        edit(lambda f: f["defaults"].update(steps=-1)), "auto",
        r"defaults\.steps is -1, not a whole number of 1 to"),
    "a default that does not fit": (
        edit(lambda f: f["defaults"].update(steps=5000)), "auto",
        r"bundle\.json: its default settings cannot be sampled \(`steps` must be .*, got 5000\)"),
    "a schedule that does not fall": (
        edit(lambda f: f["schedule"].update(beta_start=0, rescale_zero_terminal_snr=False)), "auto",
        r"bundle\.json: its noise schedule does not decrease"),
    "no manifest": (lambda d: drop(d, MANIFEST), "auto", r"is not a bundle .*build-engines"),
    "a later format": (
        edit(lambda f: f.update(format=2)), "auto", r"has format 2, this synfer-rt reads 1"),
    "exported again, not compiled": (
        another_graph, "auto", r"plan for denoiser was compiled from another denoiser\.onnx"),
    "plan of another graph": (
        edit_plan(lambda p: p.update(source_sha256="0" * 64)), "auto",
        r"compiled from another denoiser\.onnx"),
    "plan without hash": (
        edit(lambda f: f["files"].pop(PLAN)), "auto", r"denoiser\.plan, which has no hash"),
    "plan outside": (
        edit(lambda f: (
            f["plans"]["tensorrt-rtx"]["denoiser"].update(file="../x.plan"),
            f["files"].update({"../x.plan": {"sha256": "", "bytes": 0}}))),
        "auto", r"'\.\./x\.plan', outside"),
    "unknown target": (
        edit(lambda f: f["plans"].update(coreml={})), "auto", "the unknown target 'coreml'"),
    "unknown engine": (
        edit(lambda f: f["plans"]["tensorrt-rtx"].update(upscaler={})), "auto",
        "plan for the unknown engine 'upscaler'"),
    "plans of no shape": (edit(lambda f: f.update(plans=[])), "auto", "plans are not an object"),
    "plan of no shape": (
        edit(lambda f: f["plans"]["tensorrt-rtx"].update(denoiser=3)), "auto",
        "plan for denoiser is not an object"),
    "plan without version": (
        edit_plan(lambda p: p.pop("version")), "auto", "plan for denoiser has no version"),
    "malformed capability": (
        edit_plan(lambda p: p.update(compute_capabilities=["8.9"])), "auto",
        r"compute capabilities \['8\.9'\] instead of names such as sm89"),
    "no capability": (
        edit_plan(lambda p: p.update(compute_capabilities=[])), "auto",
        r"compute capabilities \[\] instead of"),
    "profile without maximum": (
        profile(lambda p: p["latents"].pop("max")), "auto", "no min, opt and max for latents"),
    "profile of a stranger": (
        profile(lambda p: p.update(depth=p.pop("latents"))), "auto", "has profiles for .*depth"),
    "impossible shape": (
        profile(lambda p: p["latents"].update(min=[0, 4, 8, 8])), "auto",
        r"the shape \[0, 4, 8, 8\] for latents"),
    "profile of another shape": (
        profile(lambda p: p["latents"].update(max=[8, 4, 9, 9])), "auto",
        r"the shape \[8, 4, 9, 9\] for latents"),
    "different batches": (
        profile(lambda p: p["latents"].update(max=[9, 4, 8, 8])), "auto",
        "profiles with different batches"),
    "batches that do not rise": (
        profile(lambda p: every_batch(p, "opt", 16)), "auto",
        r"batches 1, 16, 8, which do not increase"),
    "plan of another version": (
        edit(lambda f: [p.update(version="1.6.0") for p in f["plans"]["tensorrt-rtx"].values()]),
        RTX,
        r"compiled by tensorrt-rtx 1\.6\.0, and 1\.7\.1 is installed; .*--target tensorrt-rtx"),
    "plan of another GPU": (
        edit_plan(lambda p: p.update(compute_capabilities=["sm80", "sm120"])), RTX,
        "is for sm80, sm120, and this GPU is sm89; .*--compute-capability sm89"),
    "no plans at all": (
        edit(lambda f: f.pop("plans")), RTX, "has no tensorrt-rtx plans; .*--target tensorrt-rtx"),
    "no plan of one engine": (
        edit(lambda f: f["plans"]["tensorrt-rtx"].pop("decoder")), RTX,
        "has no tensorrt-rtx plan for decoder"),
    "plans of the other library": (
        lambda d: None, "tensorrt-cuda", "has no tensorrt plans; .*--target tensorrt "),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_with_its_own_sentence_and_nothing_is_loaded(
    copy: Path, loaded: list[str], case: str
) -> None:
    damage, backend, words = CASES[case]
    damage(copy)
    with pytest.raises(UserError, match=words) as error:
        start(copy, backend)
    assert loaded == []
    assert str(error.value).endswith(".")


def test_undamaged_it_loads(copy: Path, loaded: list[str]) -> None:
    start(copy, RTX)
    assert loaded == ["conditioner", "denoiser", "decoder"]


def test_each_sentence_is_another(copy: Path, tmp_path: Path) -> None:
    """By the words of its case no sentence could be taken for one of another kind of damage."""
    sentences = {}
    for number, (case, (damage, backend, _)) in enumerate(CASES.items()):
        directory = Path(shutil.copytree(copy, tmp_path / str(number)))
        damage(directory)
        with pytest.raises(UserError) as error:
            start(directory, backend)
        sentences[case] = str(error.value).replace(str(directory), "")
    again = {"exported again, not compiled", "plan of another graph"}
    distinct = {sentence for case, sentence in sentences.items() if case not in again}
    assert len(distinct) == len(CASES) - len(again)


def test_a_directory_whose_name_is_no_text_is_refused(copy: Path, tmp_path: Path) -> None:
    other = copy.rename(tmp_path / os.fsdecode(b"copy\xff"))
    with pytest.raises(UserError, match=r"'.*copy\\udcff', .*not UTF-8.*rename it"):
        open_bundle(other)


def test_auto_takes_the_plans_when_they_are_for_what_is_here(copy: Path) -> None:
    assert choose("auto", open_bundle(copy)) == (RTX, RTX)


@pytest.mark.parametrize(
    ("here", "words"),
    [
        (("1.7.2", "sm89"), "was compiled by tensorrt-rtx 1.7.1, and 1.7.2 is installed"),
        (("1.7.1", "sm120"), "is for sm80, sm89, and this GPU is sm120"),
    ],
)
def test_auto_says_why_it_does_not_take_them_and_goes_on(
    copy: Path, monkeypatch: pytest.MonkeyPatch, here: tuple[str, str], words: str
) -> None:
    monkeypatch.setattr(tensorrt, "_here", lambda target: here)
    name, why = choose("auto", open_bundle(copy))
    assert name == "onnxruntime-cuda"
    assert f"not {RTX}: " in why
    assert words in why
    assert "not tensorrt-cuda: synfer-tiny has no tensorrt plans" in why


def test_an_engine_without_plan_is_refused_when_it_is_opened(copy: Path, loaded: list[str]) -> None:
    edit(lambda f: f["plans"]["tensorrt-rtx"].pop("encoder"))(copy)
    bundle = open_bundle(copy)
    assert choose(RTX, bundle)[0] == RTX
    with pytest.raises(UserError, match="cannot run encoder: synfer-tiny has no tensorrt-rtx plan"):
        open_engine(bundle, "encoder", RTX)
    assert loaded == []
