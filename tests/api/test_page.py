"""The page docs/python.md."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path
from typing import Any

import click
import pytest

import synfer_rt
from synfer_rt.api import Model
from synfer_rt.commands.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_page_on_python_has_every_command() -> None:
    named = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(), re.M)
    assert sorted(named) == main.list_commands(click.Context(main))


def test_the_page_on_python_runs(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synfer_rt, "load", lambda: model, raising=False)
    names: dict[str, Any] = {}
    exec(code, names)
    assert len(names["samples"]) == 4 and names["written"].count == 16
    assert names["filled"].classes["happy"].added == 1


def test_the_page_on_python_names_what_there_is() -> None:
    pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
    for name in re.findall(r"`(synfer_rt(?:\.\w+)+)`", PAGE.read_text()):
        assert pkgutil.resolve_name(name) is not None
