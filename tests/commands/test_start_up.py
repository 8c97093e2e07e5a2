"""What a run loads before its first image: no more than it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle

_IDLE = ("asyncio", "datasets", "diffusers", "openvino", "pandas", "pyarrow", "torch", "webdataset")
"""Packages that no run on ONNX Runtime that writes PNG files has a use for."""
_PROGRAM = """
import json, sys
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.commands.cli import main
loaded = []
open_one = LoadedEngines._open
def opening(self, name, rows=None):
    loaded.append((name, rows))
    return open_one(self, name, rows)
LoadedEngines._open = opening
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps({"loaded": loaded, "modules": sorted(sys.modules)}))
"""


def test_the_first_image_waits_for_what_it_needs_alone(
    voting_bundle: Bundle, tmp_path: Path
) -> None:
    words = ["sample", "--bundle", voting_bundle.path, "--out", tmp_path / "out", "--count", "1"]
    words += ["--backend", "onnxruntime-cpu", "--threads", "1"]
    call = [sys.executable, "-c", _PROGRAM, *map(str, words)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not set(_IDLE) & set(found["modules"])
    engines = {"conditioner", "denoiser", "decoder", *voting_bundle.annotators}
    assert {name for name, _ in found["loaded"]} == engines
    assert len(found["loaded"]) == len(engines)
    assert all(rows == 1 for _, rows in found["loaded"])


def test_engines_are_loaded_at_once_and_ready_for_the_run(tiny_bundle: Bundle) -> None:
    engines = LoadedEngines(tiny_bundle, "onnxruntime-cpu", threads=2)
    engines.load(["denoiser", "decoder", "denoiser"], rows=16)
    assert set(engines.placements()) == {"denoiser", "decoder"}
