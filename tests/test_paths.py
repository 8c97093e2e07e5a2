"""Addresses of other machines are no paths; a folder `s3:` is never made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.commands.cli import main
from synfer_rt.commands.options import LocalPath
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.images import find_images
from synfer_rt.data.label_table import Table
from synfer_rt.data.writers import open_output
from synfer_rt.errors import UserError
from synfer_rt.jobs.balance import targets
from synfer_rt.paths import local
from synfer_rt.sampling.inversion import read_photos

ADDRESSES = [
    "s3://bucket/faces",
    "gs://bucket/faces",
    "hf://datasets/someone/faces",
    "https://example.org/faces.tar",
    "abfss://container@account/faces",
    "S3://bucket",
]


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test begins and ends in an empty folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield
    assert os.listdir(here) == []


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("kind", [str, Path])
def test_an_address_is_no_path(address: str, kind: Callable[[str], Any]) -> None:
    scheme, _, rest = address.partition("://")
    said = rf"^{scheme.lower()}://{rest} is an address, not a path on this machine; .* copy"
    with pytest.raises(UserError, match=said):
        local(kind(address))


def test_a_file_address_names_its_path() -> None:
    with pytest.raises(UserError, match="write the path alone, /data/faces"):
        local("file:///data/faces")


@pytest.mark.parametrize("text", ["faces", "./a:b/c", "/data/s3:/x", "C:/faces", "a:b", "x/s3://y"])
def test_a_path_stays_what_it_is(text: str) -> None:
    assert local(text) == local(Path(text)) == Path(text)


@pytest.mark.parametrize("value", [None, 3, b"faces", ["faces"]])
def test_what_is_no_path_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match="A path must be a text or a Path, got"):
        local(value)


SETTINGS = {"format": "imagefolder", "count": 1, "classes": ["happy"], "au_vocabulary": None}


@pytest.mark.parametrize(
    "use",
    [
        open_bundle,
        read_dataset,
        find_images,
        lambda path: read_photos(path, (8, 8)),
        lambda path: open_output(path, SETTINGS, resume=False),
        lambda path: open_output(Path(path), SETTINGS, resume=False),
        lambda path: Table(Path(path) / "labels.csv", {}, {}, False),
        lambda path: targets({"happy": 1}, Path(path)),
    ],
)
def test_python_refuses_an_address(use: Callable[[str], Any]) -> None:
    with pytest.raises(UserError, match=r"s3://bucket/x\S* is an address"):
        use("s3://bucket/x")


@pytest.mark.parametrize("value", [3, b"faces", True])
def test_a_bundle_has_a_path(value: Any) -> None:
    with pytest.raises(UserError, match="`bundle` must be a text or a Path"):
        open_bundle(value)


def commands() -> list[str]:
    return main.list_commands(click.Context(main))


def paths_of(name: str) -> list[click.Parameter]:
    if name == "build-engines":
        pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return [p for p in command.params if isinstance(p.type, click.Path)]


@pytest.mark.parametrize("name", commands())
def test_every_path_of_a_command_is_a_local_one(name: str) -> None:
    assert all(isinstance(parameter.type, LocalPath) for parameter in paths_of(name))


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "--layout-from"],
        ["sample", "--bundle"],
        ["label", "."],
        ["label", ".", "--out"],
        ["augment", "x", "--out"],
        ["augment", "--out", "x"],
        ["augment", "x", "--out", "y", "--bundle"],
        ["augment", "x", "--out", "y", "--balance"],
        ["bench", "--json"],
        ["bench", "--markdown"],
        ["inspect"],
    ],
)
def test_a_command_refuses_an_address_and_writes_nothing(arguments: list[str]) -> None:
    found = CliRunner().invoke(main, [*arguments, "s3://bucket/x"])
    assert found.exit_code == 2
    option = arguments[-1] if arguments[-1].startswith("--") else ""
    assert f"{option} s3://bucket/x is an address".strip() in " ".join(found.stderr.split())


def test_building_refuses_addresses(tiny_bundle: Bundle) -> None:
    pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
    from synfer_rt.export.build.whole_bundle import Source, build_bundle
    from synfer_rt.export.files.lora.merge import parse_lora

    with pytest.raises(UserError, match="hf://someone/model is an address"):
        build_bundle(Source(Path("hf://someone/model")), Path("out"))
    with pytest.raises(UserError, match="s3://bucket/out is an address"):
        build_bundle(Source(tiny_bundle.path), Path("s3://bucket/out"))
    with pytest.raises(UserError, match="is an address"):
        parse_lora("https://example.org/style.safetensors:0.8")
