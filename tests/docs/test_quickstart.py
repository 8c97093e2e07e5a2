"""docs/quickstart.ipynb: its cells run one after the other, and what ends one shows itself."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import synfer_rt

PAGE = Path(__file__).resolve().parents[2] / "docs" / "quickstart.ipynb"


def cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(PAGE.read_text())["cells"] if cell["cell_type"] == "code"]


def value_of(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; what its last line is, as a notebook takes it."""
    *statements, last = ast.parse(source).body
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module(statements, []), str(PAGE), "exec"), names)
    return eval(compile(ast.Expression(last.value), str(PAGE), "eval"), names)


def test_every_cell_runs_and_shows_what_its_output_shows(
    tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = synfer_rt.load(tiny_bundle_path, backend="onnxruntime-cpu", threads=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synfer_rt, "load", lambda: model, raising=False)
    names: dict[str, Any] = {}
    for cell in cells():
        value = value_of("".join(cell["source"]), names)
        (output,) = cell["outputs"]
        assert ("text/html" in output["data"]) == hasattr(value, "_repr_html_")
        assert repr(value).split("(")[0] == "".join(output["data"]["text/plain"]).split("(")[0]
