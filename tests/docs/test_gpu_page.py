"""docs/gpu.md: its commands exist with their options, and no figure is without its origin."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from synfer_rt.commands.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "gpu.md"
OTHERS = {"nvidia-smi", "git", "cd", "wait", "python3", ".", "hf"}
"""Programs that are not ours, of which only the words are checked that name something of ours."""
ORIGINS = ("estimated", "counted", "measured")
FIGURE = re.compile(r"\d (?:GB|MB|TFLOP|images/s|minutes|hours)\b")


def commands() -> list[str]:
    """The lines of the page's blocks of commands, split where one runs after the other."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [part for line in lines for part in re.split(r" && | & *$", line) if part]


def words_of(command: str) -> list[str]:
    """The words of a command without the variables that are set before it."""
    words = shlex.split(command, comments=True)
    while "=" in words[0] and words[0].split("=")[0].isupper():
        words.pop(0)
    return words


@pytest.mark.parametrize("command", commands())
def test_every_command_exists_with_its_options(command: str):
    program, *words = words_of(command)
    program = program.removeprefix("build-env/bin/")
    if program == "synfer-rt":
        found = main.get_command(click.Context(main), words[0])
        assert found is not None, words[0]
        found.make_context(words[0], words[1:], resilient_parsing=False)
    elif program == "pip":
        check_packages(words)
    elif program == "python" and words[0] == "-m" and words[1] != "venv":
        assert importlib.util.find_spec(words[1]) is not None
    else:
        assert program in {*OTHERS, "python"}


def check_packages(words: list[str]) -> None:
    """Raise where pip would be asked for an extra or a file that the project does not have."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for word in words:
        if named := re.fullmatch(r"\.\[(.*)\]", word):
            assert {*named[1].split(",")} <= extras.keys()
        if word.endswith(".txt"):
            assert (ROOT / word).exists()


def test_the_runtime_is_the_one_that_was_counted():
    """The nodes on the page of results were counted with the ONNX Runtime that is installed."""
    from tests.fake_cuda.run import RUNTIME

    name, version = RUNTIME.split("==")
    assert f"'{name}[cuda,cudnn]=={version}'" in PAGE.read_text()
    assert f"{name} {version}" in (ROOT / "docs" / "results" / "gpu.md").read_text()


def paragraphs() -> list[str]:
    """The paragraphs and list items of the page, and its tables row by row under their heads."""
    text = re.sub(r"```.*?```", "", PAGE.read_text(), flags=re.DOTALL)
    found: list[str] = []
    for paragraph in re.split(r"\n\n|\n(?=- )", text):
        lines = paragraph.splitlines()
        if len(lines) > 1 and lines[1].startswith("|---"):
            found += [f"{lines[0]} {row}" for row in lines[2:]]
        else:
            found.append(paragraph)
    return found


@pytest.mark.parametrize("paragraph", [p for p in paragraphs() if FIGURE.search(p)])
def test_every_figure_says_where_it_comes_from(paragraph: str):
    assert any(origin in paragraph for origin in ORIGINS)


def failures() -> list[tuple[str, str]]:
    """The messages of the page's last table with who writes them."""
    table = PAGE.read_text().split("## When it fails")[1]
    return re.findall(r"^\| `(.*?)` (\(.*?\))? *\|", table, re.MULTILINE)


def test_every_message_of_ours_is_one_that_the_program_can_write():
    files = (path for top in ("synfer_rt", "export") for path in (ROOT / top).rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", "".join(path.read_text() for path in files))
    ours = [message for message, writer in failures() if not writer]
    assert len(ours) > 3
    missing = [
        part
        for message in ours
        for part in re.split(r" ?\(…\) ?| *… *", message)
        if part and part not in joined
    ]
    assert not missing
