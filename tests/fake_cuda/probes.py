"""A CUDA provider that loads and computes nothing must not be said to work.

    python tests/fake_cuda/run.py tests/fake_cuda/probes.py

Exits 1 unless `synfer-rt doctor` would say that every small network comes out wrong.
"""

from __future__ import annotations

import os
import sys

from synfer_rt.backends import probed, probes


def main() -> int:
    status = probed("onnxruntime-cuda")
    names = [probe.name for probe in probes.plain() + probes.fused()]
    told = not status.works and status.reason == f"{', '.join(names)}: wrong values"
    print(f"onnxruntime-cuda {'works' if status.works else f'does not work: {status.reason}'}")
    return 0 if told else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # ONNX Runtime would free kernels that there are not
