"""The shape of the source tree: imports go one way, functions are short, tests mirror it."""

from __future__ import annotations

import ast
import tomllib
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = ("synfer_rt", "export", "engines", "bench")
SOURCE = (*INSTALLED, "reference")
LONGEST = 60


def module_name(path: Path) -> str:
    """The name under which Python imports a file: export, engines and bench are in synfer_rt."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] in INSTALLED[1:]:
        parts.insert(0, "synfer_rt")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for folder in SOURCE for path in (ROOT / folder).rglob("*.py")}


def module_of(name: str) -> str:
    """The module that a dotted name is, or is defined in; empty for a module of another project."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def imported_names(module: str) -> set[str]:
    """Every name that a module imports, at any depth and for type checking too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


IMPORTS = {
    module: {module_of(name) for name in imported_names(module)} - {"", module}
    for module in MODULES
}


def room(module: str) -> str:
    """`sampling` of `synfer_rt.sampling.sampler`; the package itself is `synfer_rt`."""
    parts = module.split(".")
    return parts[0] if parts[0] == "reference" or len(parts) == 1 else parts[1]


def floors() -> list[list[str]]:
    """The rooms of docs/architecture.md, lowest first; rooms on one line are side by side."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    block = page.split("<!-- rooms, lowest first -->\n```text\n")[1].split("```")[0]
    return [line.split() for line in block.splitlines()]


def test_no_module_imports_itself_in_a_circle():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail("imported in a circle: " + " <- ".join(error.args[1]))


def test_the_architecture_page_has_every_room_once():
    named = [name for floor in floors() for name in floor]
    assert len(named) == len({*named})
    assert {room(module) for module in MODULES} <= {*named}


def test_modules_import_from_lower_rooms_alone():
    floor = {name: number for number, names in enumerate(floors()) for name in names}
    upward = {
        (module, other)
        for module, imports in IMPORTS.items()
        for other in imports
        if room(other) != room(module) and floor[room(other)] >= floor[room(module)]
    }
    assert not upward


def long_functions() -> set[str]:
    """The functions past LONGEST lines, such as `bench/cli.py: main`."""
    return {
        f"{path.relative_to(ROOT).as_posix()}: {node.name}"
        for folder in (*SOURCE, "tests")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LONGEST
    }


def test_no_function_is_longer_than_a_page():
    assert not long_functions()


def test_every_folder_of_python_is_installed():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {module_name(path.parent / "__init__.py") for path in MODULES.values()}
    assert sorted(tool["packages"]) == sorted(f for f in folders if f.startswith("synfer_rt"))


def folders_of(kind: str, *tops: str) -> set[Path]:
    """The folders that hold files of a kind, relative to the root."""
    paths = [path for top in tops for path in (ROOT / top).rglob(kind)]
    return {path.parent.relative_to(ROOT) for path in paths}


def place_of_tests(folder: Path) -> Path:
    """Where the tests of a folder lie: of synfer_rt/data in tests/data, of export in its own."""
    parts = folder.parts[1:] if folder.parts[0] == "synfer_rt" else folder.parts
    return Path("tests", *parts)


@pytest.mark.parametrize("folder", sorted(folders_of("[!_]*.py", *SOURCE)), ids=str)
def test_every_room_has_tests_in_the_folder_of_its_name(folder: Path):
    tests = ROOT / place_of_tests(folder)
    assert [*tests.rglob("test_*.py"), *tests.parent.glob(f"test_{tests.name}.py")]


def test_every_folder_of_tests_is_that_of_a_room():
    rooms = {place_of_tests(folder) for folder in folders_of("*.py", *SOURCE)}
    assert folders_of("test_*.py", "tests") <= rooms | {Path("tests", "docs")}


def test_pytest_collects_every_file_of_tests(pytestconfig: pytest.Config):
    ignored = pytestconfig.getini("norecursedirs")
    collected = pytestconfig.getini("python_files")
    for file in sorted((ROOT / "tests").rglob("*.py")):
        folders = file.relative_to(ROOT).parts[:-1]
        assert not any(fnmatch(name, pattern) for name in folders for pattern in ignored), file
        if "\ndef test_" in file.read_text():
            assert any(fnmatch(file.name, pattern) for pattern in collected), file
