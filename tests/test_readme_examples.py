"""README.md's examples, run one after the other as a reader would (`pytest -m slow`)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def examples() -> list[str]:
    """The commands of README's section Use, in its order."""
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"^## Use\n\n((?: {4}.+\n)+)", readme, re.MULTILINE)
    assert block, "README.md has no examples below ## Use"
    return [line.strip() for line in block[1].splitlines()]


def test_every_example_is_a_command():
    assert len(examples()) > 10
    assert all(line.startswith("synfer-rt ") for line in examples())


@pytest.mark.slow
def test_the_examples_run_in_their_order(tmp_path: Path):
    for line in examples():
        words = shlex.split(line, comments=True)[1:]
        done = subprocess.run(
            [sys.executable, "-m", "synfer_rt", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
