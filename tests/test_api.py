"""The library's door: what commands can do, Python can, with types and short reprs."""

from __future__ import annotations

import inspect
import json
import logging
import pkgutil
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import click
import numpy as np
import pytest

import synfer_rt
from synfer_rt import UserError, api
from synfer_rt.api import Model
from synfer_rt.bundle import Bundle
from synfer_rt.commands.cli import main
from synfer_rt.data.writers import read, run_file
from synfer_rt.jobs.label_results import LabelledImage
from synfer_rt.jobs.progress import Progress
from synfer_rt.jobs.sample_settings import DEFAULTS, SampleSettings, make_run
from synfer_rt.records import ANY_LINE
from tests.small_datasets import picture


@pytest.fixture(scope="module")
def model(tiny_bundle_path: Path) -> Model:
    return synfer_rt.load(tiny_bundle_path, backend="onnxruntime-cpu", threads=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "photos"
    for label, shades in {"happy": (10, 60, 110), "sad": (200,)}.items():
        (root / label).mkdir(parents=True)
        for shade in shades:
            (root / label / f"{shade}.png").write_bytes(picture(shade))
    return root


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a function and their defaults; those of SampleSettings are among them."""
    found = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    }
    if found.pop("settings", None) is not None:
        found |= {name: DEFAULTS.get(name) for name in get_type_hints(SampleSettings)}
    return found


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


def plain(value: Any) -> Any:
    """A default in one form: click has a tuple or nothing where Python has None."""
    return None if value in ((), "") or value is inspect.Parameter.empty else str(value)


LOADING = parameters(api.load)
CALLED = {
    "sample": (Model.write, {}),
    "label": (Model.label, {"out"}),  # a table is written by default on the command line alone
    "augment": (Model.augment, {}),
    "calibrate": (Model.calibrate, {}),
    "plan": (Model.preview, {}),
    "status": (api.status, {}),
    "finish": (api.finish, {}),
    "doctor": (api.doctor, {}),
    "evaluate": (api.evaluate, {}),
    "verify": (api.verify, {}),
    "verify-engines": (api.verify_engines, {}),
}
NAMES = {"directory": "bundle"}
"""Arguments of commands that are called otherwise in Python."""


@pytest.mark.parametrize("name", CALLED)
def test_python_can_do_what_the_command_can(name: str) -> None:
    function, other_defaults = CALLED[name]
    there = LOADING | parameters(function)
    if name == "sample":  # with --plan it calls Model.write_plan
        there["plan"] = None
    for parameter in command(name).params:
        known = NAMES.get(parameter.name or "", parameter.name or "")
        assert known in there, f"{name} has {known}, Python has not"
        if known not in other_defaults and not parameter.required:
            default = parameter.to_info_dict().get("default")
            if isinstance(parameter, click.Option) and parameter.is_flag:
                default = bool(default)
            assert plain(default) == plain(there[known]), known


def test_python_samples_in_memory_with_the_settings_of_write() -> None:
    writing = {"out", "format", "shard_size", "part", "wait", "ray", "resume", "mix_backends"}
    writing |= {"image_format", "image_quality"}
    assert parameters(Model.write).keys() - parameters(Model.sample).keys() == writing


def test_the_settings_of_sample_are_explained() -> None:
    assert all(name in (Model.sample.__doc__ or "") for name in get_type_hints(SampleSettings))


def test_a_setting_that_sample_does_not_have_is_refused(tiny_bundle: Bundle) -> None:
    unknown: Any = {"step": 3}
    with pytest.raises(TypeError, match="unexpected keyword argument 'step'"):
        make_run(tiny_bundle, count=1, **unknown)


def test_python_can_do_what_bench_can() -> None:
    from synfer_rt.bench import bench, estimate

    names = {"batches": "batch", "backends": "backend", "peers": "compare"}
    names |= {"file": "json", "page": "markdown"}
    given = {names.get(p.name or "", p.name) for p in command("bench").params}
    assert given - {estimate.__name__} <= inspect.signature(bench).parameters.keys()


def test_python_can_do_what_build_engines_can() -> None:
    pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
    from synfer_rt.export import build_engines

    names = {"loras": "lora", "classifiers": "classifier", "schemes": "classifier_labels"}
    names |= {"specs": "classifier_input", "targets": "target"}
    names |= {"capabilities": "compute_capability"}
    given = {names.get(p.name or "", p.name) for p in command("build-engines").params}
    assert given <= inspect.signature(build_engines).parameters.keys()


def test_python_can_do_what_unpack_can() -> None:
    pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
    from synfer_rt.export.build.unpack import unpack

    given = {p.name for p in command("unpack").params}
    assert given == inspect.signature(unpack).parameters.keys()


def test_python_can_do_what_export_optimum_can() -> None:
    pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
    from synfer_rt.export.onnx_pipeline.writing import write_onnx_pipeline

    given = {p.name for p in command("export-optimum").params}
    assert given | {"remark"} == inspect.signature(write_onnx_pipeline).parameters.keys()


def test_the_page_on_python_has_every_command() -> None:
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
    named = re.findall(r"^\| `([a-z-]+)` \|", page, re.M)
    assert sorted(named) == main.list_commands(click.Context(main))


def test_samples_are_labelled_images(model: Model) -> None:
    samples = model.sample(labels=["happy", "sad"], count=3, seed=4, steps=2)
    assert [sample.request.label for sample in samples] == ["happy", "sad", "happy"]
    for sample in samples:
        assert sample.image.dtype == np.uint8 and sample.image.shape == (32, 32, 3)
        assert sample.label in model.bundle.classes
        assert sum(sample.probabilities.values()) == pytest.approx(1, abs=1e-3)


def test_action_units_are_those_that_are_given(model: Model) -> None:
    (sample,) = model.sample(labels=["happy"], aus={"AU12": 0.8}, count=1, steps=1)
    assert sample.request.aus == {"AU12": 0.8}


def test_samples_in_memory_are_those_that_are_written(model: Model, tmp_path: Path) -> None:
    settings: SampleSettings = {"labels": ["happy", "fear"], "seed": 7, "steps": 2}
    samples = model.sample(count=5, batch=2, **settings)
    written = model.write(tmp_path / "out", count=5, format="parquet", **settings)
    assert written.count == written.summary.images == 5
    for sample, (record, png) in zip(samples, read(Path(written.path)), strict=True):
        assert np.array_equal(sample.image, decoded(png))
        assert (sample.label, sample.accepted) == (record["label"], record["accepted"])


def decoded(png: bytes) -> np.ndarray:
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)))


def test_accepted_samples_are_counted_in_memory_too(model: Model) -> None:
    samples = model.sample(labels=["happy"], count=3, count_accepted=True, steps=1, threshold=0.0)
    assert [sample.accepted for sample in samples].count(True) >= 3


def test_what_is_not_a_setting_is_a_type_error(model: Model) -> None:
    with pytest.raises(TypeError, match="colour"):
        model.sample(colour="red")  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"count": 0}, "`count` must be at least 1, got 0"),
        ({"batch": 0}, "`batch` must be at least 1, got 0"),
        ({"budget": 9}, "`budget` needs `count_accepted`"),
        ({"count_accepted": True, "budget": 9}, "`budget` is 9"),
        ({"layout": "none", "layout_strength": 0.5}, "`layout_strength` needs a start face"),
        ({"size": "64x64"}, "(height, width)"),
        ({"layout_from": "/nowhere"}, "/nowhere"),
        ({"format": "zip"}, "`format` must be one of imagefolder, webdataset, parquet"),
        ({"mix_backends": True}, "add `resume=True`"),
        ({"count": 10**30}, "`count` must be from 1 to 2^63 - 1"),
        ({"count_accepted": "no"}, "`count_accepted` must be True or False, got 'no'"),
        ({"resume": "no"}, "`resume` must be True or False, got 'no'"),
        ({"mix_backends": 0}, "`mix_backends` must be True or False, got 0"),
        ({"format": ["parquet"]}, "`format` must be one of"),
        ({"layout_from": 3}, "`layout_from` must be a text or a Path, got 3"),
        ({"layout_from": "a\0b"}, "`layout_from` must be a possible name of a file"),
        ({"aus": np.array([1, 2])}, "`aus` must be a mapping"),
        ({"size": {64, 32}}, "(height, width)"),
        ({"size": np.array(3)}, "(height, width)"),
    ],
)
def test_python_gets_the_checks_of_the_command(
    model: Model, tmp_path: Path, settings: Any, said: str
) -> None:
    with pytest.raises(UserError) as error:
        model.write(tmp_path / "out", **settings)
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


def test_numbers_of_numpy_are_written_like_those_of_python(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    door: Any = model
    door.write(tmp_path / "out", count=2, steps=np.int64(1), threshold=np.float32(0.5))
    door.label(photos, out=tmp_path / "t.jsonl", accept_rate=np.float32(0.5))
    made = door.augment
    numbers = {"noise_scale": np.float32(8), "repair_steps": np.int64(0), "attempts": np.int64(1)}
    balance = {"sad": np.int64(2)}
    made(photos, tmp_path / "more", balance=balance, seed=np.int64(1), **numbers)
    settings = run_file.load(tmp_path / "more")
    assert settings["noise_scale"] == 8.0 and settings["attempts"] == settings["seed"] == 1
    assert made(photos, tmp_path / "one", balance=np.int64(2), repair_steps=0).count == 5


def test_progress_is_told_to_functions_alone(model: Model) -> None:
    odd: Any = "bar"
    with pytest.raises(UserError, match="`on_progress` must be a function, got 'bar'"):
        model.sample(count=1, on_progress=odd)


def test_none_is_the_default_of_each_setting(model: Model) -> None:
    nothing: Any = dict.fromkeys(get_type_hints(SampleSettings))
    (sample,) = model.sample(count=1, **nothing)
    (default,) = model.sample(count=1)
    assert sample.request == default.request


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"decode_originals": "no"}, "`decode_originals` must be True or False, got 'no'"),
        ({"input_format": ["folders"]}, "no dataset format ['folders']"),
        ({"dataset": None}, "`dataset` must be a text or a Path, got None"),
        ({"out": 3}, "`out` must be a text or a Path, got 3"),
    ],
)
def test_augment_refuses_values_of_another_type(
    model: Model, photos: Path, tmp_path: Path, settings: Any, said: str
) -> None:
    with pytest.raises(UserError) as error:
        model.augment(**{"dataset": photos, "out": tmp_path / "out", **settings})
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("images", [None, 3, b"photos", {"photos": 1}, np.array(3)])
def test_label_refuses_what_is_no_list_of_paths(model: Model, images: Any) -> None:
    with pytest.raises(UserError, match="`images` must be a path or a list of paths"):
        model.label(images)


def test_a_model_checks_how_it_is_loaded(tiny_bundle_path: Path, tmp_path: Path) -> None:
    odd: list[Any] = [np.array([1, 2]), ["auto"], None]
    for backend in odd:
        with pytest.raises(UserError, match="`backend` must be a text"):
            _ = synfer_rt.load(tiny_bundle_path, backend=backend).backend
    with pytest.raises(UserError, match="`bundle` must be a possible name of a file"):
        synfer_rt.load("a\0b")
    with pytest.raises(UserError, match="`threads` must be from 1 to 1024, got 0"):
        synfer_rt.load(tiny_bundle_path, threads=0)
    with pytest.raises(UserError):
        synfer_rt.load(tmp_path)


def test_an_interrupted_run_says_how_to_continue_and_does(model: Model, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.done > 4:
            raise KeyboardInterrupt

    settings: SampleSettings = {"steps": 1, "seed": 2}
    with pytest.raises(KeyboardInterrupt) as interruption:
        model.write(tmp_path / "out", count=8, batch=2, on_progress=stop, **settings)
    (said,) = interruption.value.__notes__
    assert said.startswith("Interrupted with 4 of 8 images written") and "`resume=True`" in said
    seen: list[Progress] = []
    written = model.write(
        tmp_path / "out", count=8, batch=2, resume=True, on_progress=seen.append, **settings
    )
    assert written.count == 8 and written.summary.images == 4
    assert seen[0] == Progress(4, 8, before=4) and seen[-1] == Progress(8.0, 8, before=4)
    whole = model.write(tmp_path / "whole", count=8, **settings)
    assert [png for _, png in read(Path(whole.path))] == [
        png for _, png in read(Path(written.path))
    ]


def test_engines_stay_loaded(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    model.sample(count=1, steps=1)

    def opened(*_: object) -> None:
        raise AssertionError("an engine is loaded again")

    monkeypatch.setattr("synfer_rt.backends.loaded_engines.open_engine", opened)
    model.sample(count=1, steps=1)


@pytest.mark.parametrize("suffix", ["", ".jsonl", ".csv"])
def test_labels_are_records_with_types(
    model: Model, photos: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"labels{suffix}" if suffix else None
    labels = model.label(photos, out=out, label_scheme="raf-db")
    assert labels.path == out and (out is None or out.exists())
    images = list(labels)
    assert len(images) == len(labels) == labels.new == 4
    assert [image.file_name for image in images][-1] == "sad/200.png"
    for image in images:
        assert image.given_label == image.file_name.partition("/")[0]
        assert isinstance(image.accepted, bool) and image.asked is True
        assert image.label == max(image.probabilities, key=image.probabilities.__getitem__)
        assert image.votes.keys() == set(model.bundle.annotators)
    assert labels.labels.total() == 4 and labels.given == 4


def test_a_table_of_csv_reads_back_as_the_labels_in_memory(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"not an image")
    sources = [photos, tmp_path / "broken.png"]
    written = model.label(sources, out=tmp_path / "labels.csv")
    assert list(written) == list(model.label(sources))
    again = model.label(sources, out=tmp_path / "labels.csv", resume=True)
    assert again.new == 0 and list(again) == list(written)


def test_the_fields_of_a_label_are_those_of_the_table() -> None:
    assert [field.name for field in fields(LabelledImage)] == [field.name for field in ANY_LINE]


def test_labels_refuse_what_cannot_be(model: Model, photos: Path) -> None:
    with pytest.raises(UserError, match="`images` must name"):
        model.label([])
    with pytest.raises(UserError, match="`accept_rate`"):
        model.label(photos, accept_rate=0.5, threshold=0.5)


@pytest.mark.parametrize("balance", ["max", 3, {"sad": 3}, "file"])
def test_rare_classes_are_filled_up(
    model: Model, photos: Path, tmp_path: Path, balance: Any
) -> None:
    if balance == "file":
        balance = tmp_path / "balance.json"
        balance.write_text(json.dumps({"sad": 3}))
    made = model.augment(photos, tmp_path / "out", balance=balance, repair_steps=0)
    assert made.count == 6 and made.classes["sad"].added == 2 and made.classes["happy"].added == 0
    assert made.contact_sheet is not None and made.contact_sheet.exists()
    assert (
        model.augment(
            photos, tmp_path / "out", balance=balance, repair_steps=0, resume=True
        ).classes
        == made.classes
    )


def test_verify_gives_faults(model: Model, tmp_path: Path) -> None:
    written = model.write(tmp_path / "out", count=2, steps=1, labels=["happy"])
    assert synfer_rt.verify(written.path) == api.Verification(2, ())
    next(Path(written.path).rglob("*.png")).unlink()
    found = synfer_rt.verify(written.path)
    assert found.count == 2 and found.faults
    assert found.faults[0].problem.endswith("is missing")


def test_doctor_says_what_works(tiny_bundle_path: Path, tmp_path: Path) -> None:
    found = synfer_rt.doctor(tiny_bundle_path)
    assert found.error is None and found.bundle is not None
    assert any(status.works for status in found.backends)
    assert synfer_rt.doctor(tmp_path).error is not None


def test_reprs_are_short(model: Model, photos: Path, tmp_path: Path) -> None:
    labels = model.label(photos)
    written = model.write(tmp_path / "out", count=2, steps=1)
    made = model.augment(photos, tmp_path / "made", balance=2, repair_steps=0)
    (sample,) = model.sample(count=1, steps=1)
    for thing in (model, sample, labels, next(iter(labels)), written, made):
        assert len(repr(thing)) < 600, repr(thing)
        assert "array" not in repr(thing)


def test_a_notebook_shows_results_as_pictures_and_tables(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    samples = model.sample(labels=["happy", "sad"], aus={"AU12": 0.5}, count=66, steps=1)
    page = samples._repr_html_()
    assert page.count("<img ") == 64 and page.endswith("<p>and 2 more</p>")
    assert "AU12 0.50" in page and samples[0].request.prompt in page
    assert samples[1]._repr_html_().count("<img ") == 1
    written = model.write(tmp_path / "out", labels=["happy", "sad"], count=3, steps=1)
    filled = model.augment(photos, tmp_path / "made", balance=3, repair_steps=0)
    for made in (written, filled):
        assert isinstance(made.contact_sheet, Path)
        picture = made.contact_sheet.read_text().splitlines()[-1]
        assert made._repr_html_().rpartition(" src=")[2] == picture.rpartition(" src=")[2] + "\n"
    cells = [re.findall("<td[^>]*>([^<]*)</td>", made._repr_html_()) for made in (written, filled)]
    counts = {label: n for label, n in written.summary.labelled.items()}
    assert cells[0][0::3] == [*counts] and cells[0][1::3] == [str(n) for n in counts.values()]
    assert cells[1][0:3] == ["happy", "3", "0"] and cells[1][4:7] == ["sad", "1", "2"]
    assert f"{len(model.label(photos))} images</caption>" in model.label(photos)._repr_html_()


def test_warnings_are_logged(
    model: Model, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(model.bundle), "unread", lambda *_: ("the end", ("zebra",)))
    with caplog.at_level(logging.WARNING, "synfer_rt.jobs"):
        model.sample(labels=["sad"], prompt="a zebra", count=1, steps=1)
    said = caplog.text
    assert "`prompt` is longer than" in said and "these words of `prompt`: zebra" in said


def test_a_run_is_written_where_the_command_would_find_it(model: Model, tmp_path: Path) -> None:
    model.write(tmp_path / "out", count=1, steps=1)
    assert run_file.load(tmp_path / "out")["count"] == 1


def test_the_page_on_python_runs(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[1] / "docs" / "python.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synfer_rt, "load", lambda: model, raising=False)
    names: dict[str, Any] = {}
    exec(code, names)
    assert len(names["samples"]) == 4 and names["written"].count == 16
    assert names["filled"].classes["happy"].added == 1


def test_the_page_on_python_names_what_there_is() -> None:
    pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
    for name in re.findall(r"`(synfer_rt(?:\.\w+)+)`", page):
        assert pkgutil.resolve_name(name) is not None
