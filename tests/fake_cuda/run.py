"""ONNX Runtime's CUDA provider on a machine without a GPU.

    python tests/fake_cuda/run.py [--at DIR] [SCRIPT] [ARGUMENTS …]

Makes an environment with onnxruntime-gpu and a fake CUDA runtime in DIR (build/fake_cuda; once,
about 300 MB from PyPI, a minute), then runs SCRIPT in it from the root of the repository. Without a
script it runs all the gates on the default bundle, one after the other (GATES).

The provider is the real one: it splits a graph between providers, fuses, binds, plans memory and
captures CUDA graphs as on a GPU, and `calls.py` counts what it asks of CUDA. Kernels do nothing, so
values and times mean nothing. Needs cc, nm and readelf (Debian: `gcc binutils`), on Linux x86-64.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# The last onnxruntime-gpu on PyPI; it is built for CUDA 13, and so are the headers.
RUNTIME = "onnxruntime-gpu==1.31.1"
HEADERS = ("nvidia-cuda-runtime==13.0.96", "nvidia-cuda-crt==13.0.88")
OTHERS = ("click", "numpy", "pillow", "pyarrow", "rich", "tokenizers")
"""What synfer-rt needs beside ONNX Runtime."""
GATES = (
    ("gates.py", "engines/synfer-mini", "--most", "denoiser=450"),
    ("sampling.py", "engines/synfer-mini", "--batch", "64"),
    ("probes.py",),
)


def environment(at: Path) -> tuple[Path, Path]:
    """The Python and the folder of the fake libraries in `at`, made if they are not there."""
    python, fake = at / "venv" / "bin" / "python", at / "lib"
    finished = at / "finished"
    made_of = f"{RUNTIME} {HEADERS} {OTHERS} {sys.version_info[:2]}"
    if not (finished.exists() and finished.read_text() == made_of):
        venv.create(at / "venv", with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-c", "constraints.txt", *OTHERS], cwd=ROOT, check=True)
        subprocess.run([*pip, RUNTIME], check=True)
        # Apart from the environment: the real libcudart that comes with them must not be found.
        headers = ["--no-deps", "--upgrade", "--target", str(at / "headers")]
        subprocess.run([*pip, *headers, *HEADERS], check=True)
        finished.write_text(made_of)
    provider = next((at / "venv").glob("lib/*/site-packages/onnxruntime/capi/*_providers_cuda.so"))
    headers = next((at / "headers").rglob("cuda_runtime_api.h")).parent
    subprocess.run([sys.executable, HERE / "build.py", provider, headers, fake], check=True)
    return python, fake


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--at", type=Path, default=ROOT / "build" / "fake_cuda")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="SCRIPT …")
    given = parser.parse_args()
    python, fake = environment(given.at.resolve())
    variables = os.environ | {"LD_LIBRARY_PATH": str(fake), "PYTHONPATH": str(ROOT)}
    commands = [given.command] if given.command else [[str(HERE / g), *more] for g, *more in GATES]
    codes = [
        subprocess.run([python, *command], cwd=ROOT, env=variables, check=False).returncode
        for command in commands
    ]
    return max(codes, key=abs)


if __name__ == "__main__":
    sys.exit(main())
