"""What commands can do, Python can, by arguments of the same names and defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import click
import pytest

from synfer_rt import api
from synfer_rt.api import Model
from synfer_rt.commands.cli import main
from synfer_rt.jobs.reading_settings import ReadingSettings
from synfer_rt.jobs.sample_settings import SampleSettings


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a function and their defaults."""
    shown = inspect.signature(function).parameters.items()
    return {name: parameter.default for name, parameter in shown if name != "self"}


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
    "distill": (api.distill, {}),
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


@pytest.mark.parametrize(
    ("method", "settings"), [(Model.sample, SampleSettings), (Model.label, ReadingSettings)]
)
def test_settings_are_explained_where_they_are_named(method: Any, settings: type) -> None:
    assert all(f"`{name}`" in method.__doc__ for name in get_type_hints(settings))


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
