"""The run side works in an interpreter that has no training framework."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import synfer_rt

FRAMEWORKS = ("torch", "diffusers", "transformers", "onnx", "scipy")

_SAMPLE = """
from synfer_rt import Request, Sampler, open_bundle, trajectory
bundle = open_bundle(sys.argv[1])
way = trajectory("unipc", bundle.schedule, 3, 0.9, bundle.prediction_type)
request = Request(0, 1, "happy", "a photo", "", {"AU12": 0.8}, 2.0, 1.0, 4)
(sample,) = Sampler.of(bundle, "onnxruntime-cpu", threads=1).sample([request], way, 1)
assert sample.image.std() > 1
"""
_BLOCK = f"""
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FRAMEWORKS}:
            raise ImportError(f"{{name}} is not here")
sys.meta_path.insert(0, Block())
"""
_LIST = f"""
found = [name for name in {FRAMEWORKS} if name in sys.modules]
assert not found, found
"""
_HEAVY = """
found = [n for n in ("numpy", "onnxruntime", "tokenizers", "pyarrow", "PIL") if n in sys.modules]
assert not found, found
"""


def run(code: str, *arguments: str | Path) -> None:
    """Run code in a fresh interpreter; an exception there fails the test with its output."""
    result = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_no_module_imports_a_framework_even_later() -> None:
    modules = sorted(Path(synfer_rt.__file__).parent.rglob("*.py"))
    assert len(modules) > 40
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            assert not {name.partition(".")[0] for name in names} & {*FRAMEWORKS}, module


def test_importing_the_package_imports_nothing_heavy() -> None:
    run("import synfer_rt\n" + _HEAVY)


def test_sampling_imports_no_framework(tiny_bundle_path: Path) -> None:
    run("import synfer_rt.commands.cli\n" + _SAMPLE + _LIST, tiny_bundle_path)


def test_sampling_works_where_no_framework_can_be_imported(tiny_bundle_path: Path) -> None:
    run(_BLOCK + "import synfer_rt.commands.cli\n" + _SAMPLE, tiny_bundle_path)


def test_every_public_name_resolves() -> None:
    run("import synfer_rt\nfor name in synfer_rt.__all__: getattr(synfer_rt, name)")
