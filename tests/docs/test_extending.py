"""The recipes of docs/extending.md, followed literally in a copy of the tree."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("synfer_rt", "export", "bench", "tests", "docs")
LINKED = ("engines", "reference", "pyproject.toml", "README.md", "CONTRIBUTING.md", "findings")
RUNS = {
    "synfer-rt": ["-m", "synfer_rt"],
    "pytest": ["-m", "pytest", "-n0", "-p", "no:cacheprovider"],
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a recipe: its language, its text, and the file named above it."""

    language: str
    text: str
    file: str


def recipes() -> dict[str, list[Block]]:
    """The blocks of each section, by its heading, in the page's order."""
    page = (ROOT / "docs" / "extending.md").read_text()
    sections = re.split(r"^## (.+)\n", page, flags=re.MULTILINE)[1:]
    return {
        heading: [*blocks(text)]
        for heading, text in zip(sections[::2], sections[1::2], strict=True)
    }


def blocks(section: str) -> Iterator[Block]:
    file = ""
    for prose, language, text in re.findall(
        r"(.*?)^```(\w+)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE
    ):
        named = re.findall(r"`([\w./-]+\.py)`:\n", prose)
        file = named[-1] if named else file
        yield Block(language, text, file)


def change(file: Path, diff: str) -> None:
    """Replace the lines of a diff that begin with a space or a minus by those with a plus."""
    lines = diff.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    text = file.read_text()
    assert text.count(before) == 1, f"{file} has these lines {text.count(before)} times:\n{before}"
    file.write_text(text.replace(before, after))


def run(line: str, tree: Path) -> None:
    program, *words = shlex.split(line)
    done = subprocess.run(
        [sys.executable, *RUNS[program], *words],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree; what no recipe changes is linked."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_the_page_has_its_four_recipes():
    assert [*recipes()] == ["A solver", "A backend", "A dataset format", "A kind of checkpoint"]


LONG = ("A kind of checkpoint",)
"""Recipes that build a checkpoint, left to `-m slow`."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in recipes()]
)
def test_a_recipe_works_as_written(name: str, tree: Path):
    steps = recipes()[name]
    assert {"bash"} < {block.language for block in steps}
    for block in steps:
        if block.language == "diff":
            change(tree / block.file, block.text)
        elif block.language == "python":
            assert not (tree / block.file).exists()
            (tree / block.file).write_text(block.text)
        else:
            for line in block.text.splitlines():
                run(line, tree)
    written = [block.file for block in steps if block.file]
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", *sorted({*written})]
        done = subprocess.run(ruff, cwd=tree, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
