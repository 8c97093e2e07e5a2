"""What a benchmark says of its machine."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from synfer_rt.backends.driver import Gpu
from synfer_rt.bench import machine


def test_peak_memory_counts_what_was_freed():
    code = (
        "import numpy as np\n"
        "from synfer_rt.bench.machine import peak_rss_bytes\n"
        "before = peak_rss_bytes()\n"
        "big = np.ones(2**25)\n"  # 256 MiB
        "del big\n"
        "print(peak_rss_bytes() - before)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.9 * 2**28 < int(said.stdout) < 2**29


def test_the_machine_tells_its_cores_and_only_installed_versions():
    about = machine.describe(3, ["numpy", "no-such-package"])
    assert about["versions"] == {"numpy": np.__version__}
    assert about["threads"] == 3
    assert about["cores"] >= 1
    assert about["cpu"]


def test_a_gpu_is_named_without_nvidia_smi_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "nvidia_smi", lambda *_: [])
    monkeypatch.setattr(machine, "gpu", lambda: Gpu("NVIDIA H200", "sm90", "13.0"))
    assert machine.describe(1, [])["gpus"] == ["NVIDIA H200, sm90, CUDA 13.0"]
    monkeypatch.setattr(machine, "gpu", lambda: None)
    assert machine.describe(1, [])["gpus"] == []
    monkeypatch.setattr(machine, "nvidia_smi", lambda *_: ["NVIDIA L4, 23034 MiB, 580.1"])
    assert machine.describe(1, [])["gpus"] == ["NVIDIA L4, 23034 MiB, 580.1"]
