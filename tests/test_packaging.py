"""What a user installs: one version, the promised commands, and a wheel with everything in it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import synfer_rt
from synfer_rt.engines import default_bundle

ROOT = Path(__file__).resolve().parents[1]
INSTALLED_AS = {
    "synfer_rt": "synfer_rt",
    "export": "synfer_rt/export",
    "engines": "synfer_rt/engines",
    "bench": "synfer_rt/bench",
}


def readme_command(name: str) -> str:
    """The fenced block after `<!-- name command -->`: the one that .ci/run executes."""
    pattern = rf"<!-- {name} command -->\n```\w*\n(.*?)```"
    blocks = re.findall(pattern, (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1, f"README.md has {len(blocks)} blocks marked '{name} command'"
    return blocks[0]


def version_in(file: str, pattern: str) -> str:
    match = re.search(pattern, (ROOT / file).read_text(), re.MULTILINE)
    assert match, f"{file} names no version"
    return match[1]


def test_the_version_is_one():
    declared = version_in("pyproject.toml", r'^version = "(.+)"$')
    assert metadata.version("synfer-rt") == declared
    assert synfer_rt.__version__ == declared
    assert version_in("CHANGELOG.md", r"^## (\d\S+)") == declared


@pytest.mark.parametrize("name", ["main", "test"])
def test_a_readme_command_is_one_line(name: str):
    assert readme_command(name).count("\n") == 1


def test_the_readme_runs_a_script_that_is_declared():
    program = Path(shlex.split(readme_command("main").split("&&")[-1])[0]).name
    scripts = {point.name: point for point in metadata.entry_points(group="console_scripts")}
    assert callable(scripts[program].load())


def test_the_readme_installs_an_extra_that_is_declared():
    extra = re.search(r"'\.\[(\w+)\]'", readme_command("test"))
    assert extra
    assert extra[1] in (metadata.metadata("synfer-rt").get_all("Provides-Extra") or [])


def test_the_core_needs_no_torch():
    requirements = [text for text in metadata.requires("synfer-rt") or [] if "extra ==" not in text]
    names = {re.split(r"[^\w-]", text)[0] for text in requirements}
    assert names == {"click", "numpy", "onnxruntime", "pillow", "pyarrow", "rich", "tokenizers"}


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel built from a copy: setuptools keeps stale files in a tree's build/."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    for folder in INSTALLED_AS:
        shutil.copytree(ROOT / folder, source / folder)
    command = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(out)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_every_module(wheel_files: set[str]):
    modules = {
        f"{installed}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, installed in INSTALLED_AS.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert modules == {name for name in wheel_files if name.endswith(".py")}


def test_the_wheel_holds_the_whole_bundle(wheel_files: set[str]):
    bundle = default_bundle()
    shipped = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert "bundle.json" in shipped
    assert {f"synfer_rt/engines/synfer-mini/{name}" for name in shipped} <= wheel_files


def test_the_wheel_is_typed_and_carries_its_licence(wheel_files: set[str]):
    assert "synfer_rt/py.typed" in wheel_files
    assert {Path(name).name for name in wheel_files} >= {"LICENSE", "NOTICE"}
