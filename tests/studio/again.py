"""The texts that the studio writes, run as a user would."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from synfer_rt.commands.cli import main
from synfer_rt.data import png
from synfer_rt.data.writers import run_file
from synfer_rt.studio.copying import OUT


@dataclass(frozen=True)
class Again:
    """What texts make in a folder: the content of the image's PNG."""

    folder: Path

    def python(self, text: str) -> bytes:
        names: dict[str, Any] = {}
        exec(text, names)
        return as_file(names["sample"].image)

    def command(self, line: str) -> bytes:
        program, *words = shlex.split(line)
        assert program == "synfer-rt"
        done = CliRunner().invoke(main, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        (file,) = (self.folder / OUT).rglob("*.png")
        content = file.read_bytes()
        for made in (self.folder / OUT, run_file.folder(self.folder / OUT)):
            shutil.rmtree(made)
        return content

    def plan(self, text: str, line: str) -> bytes:
        (self.folder / "plan.toml").write_text(text)
        return self.command(line)


def as_file(pixels: np.ndarray) -> bytes:
    (content,) = png.encode([pixels])
    return content
