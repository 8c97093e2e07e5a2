"""docs/clusters.md: its scripts make one dataset, run as they are written.

Where there are no GPUs and no SLURM, small programs of their names stand in for them. `synfer-rt`
runs with a tiny bundle and fewer images.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from synfer_rt.data.writers import run_file
from tests.commands.test_parts import run
from tests.data.writers.test_parts import files

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "clusters.md").read_text()
SYNFER = """#!/bin/bash
words=("${{@/284000/22}}")
words=("${{words[@]/1000/4}}")
if [ "$1" = sample ]; then
    echo "GPU ${{CUDA_VISIBLE_DEVICES:-}} ${{*: -1}}" >> gpus
    words+=(--bundle {bundle} --backend onnxruntime-cpu --threads 1)
fi
exec {python} -m synfer_rt "${{words[@]}}"
"""
SMI = "#!/bin/bash\nprintf 'GPU 0: A\\nGPU 1: B\\n'\n"


def script(name: str) -> str:
    """The script of the page that runs under this name."""
    (text,) = re.findall(rf"<!-- run: {re.escape(name)} -->\n```bash\n(.*?)```", PAGE, re.DOTALL)
    return text


@pytest.fixture
def machine(tmp_path, tiny_bundle_path):
    """Runs a script of the page in an empty folder, with these variables."""
    programs, here = tmp_path / "bin", tmp_path / "scratch"
    programs.mkdir()
    here.mkdir()
    texts = {
        "synfer-rt": SYNFER.format(bundle=tiny_bundle_path, python=sys.executable),
        "nvidia-smi": SMI,
    }
    for name, text in texts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"

    def started(text: str, **variables: str) -> subprocess.Popen[str]:
        known = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **variables}
        command = ["bash", "-c", text]
        return subprocess.Popen(
            command,
            cwd=here,
            env=known,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return started, here


def assert_whole(out: Path, tiny_bundle_path: Path) -> None:
    """The run in `out` is finished, as one process makes it."""
    one = out.with_name("one")
    options = ["--count", 22, "--shard-size", 4, "--format", "webdataset", "--threads", 1]
    options += ["--bundle", tiny_bundle_path, "--backend", "onnxruntime-cpu", "--out", one]
    assert run("sample", *options).exit_code == 0
    assert files(out) == files(one)
    assert (run_file.folder(out) / "contact-sheet.html").exists()


def test_a_loop_over_gpus_makes_one_dataset(machine, tiny_bundle_path):
    started, here = machine
    process = started(script("gpus.sh"))
    said, _ = process.communicate()
    assert process.returncode == 0 and "faces holds 22 images" in said, said
    assert sorted((here / "gpus").read_text().splitlines()) == ["GPU 0 0/2", "GPU 1 1/2"]
    assert_whole(here / "faces", tiny_bundle_path)


def test_a_slurm_array_makes_one_dataset(machine, tiny_bundle_path):
    """SLURM starts the script once for each number of `--array`, in any order and at once."""
    started, here = machine
    text = script("faces.sbatch")
    ((first, last),) = re.findall(r"^#SBATCH --array=(\d+)-(\d+)$", text, re.MULTILINE)
    numbers = range(int(last), int(first) - 1, -1)
    tasks = [started(text, SLURM_ARRAY_TASK_ID=str(number)) for number in numbers]
    said = [task.communicate()[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0] * len(tasks), said
    assert_whole(here / "faces", tiny_bundle_path)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for the names of Ray's sockets, of 107 characters."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.slow
def test_a_ray_cluster_makes_one_dataset(machine, tiny_bundle_path, short_folder):
    """Two nodes on this machine, on a free port, whose processes end with the test."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed")
    started, here = machine
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = f"127.0.0.1:{port}"
    ray = f"ray start --block --num-cpus=1 --object-store-memory={80 << 20}"
    places = {"6379": port, "first-node": "127.0.0.1", "ray start": ray}
    # The token lies in the home folder. Ray leaves the cluster's address in its temporary folder.
    home = {"HOME": str(here), "RAY_ADDRESS": "", "RAY_USAGE_STATS_ENABLED": "0"}
    home["RAY_TMPDIR"] = str(short_folder)
    nodes = []
    try:
        for name in "first-node.sh", "other-node.sh":
            text = script(name)
            for written, meant in places.items():
                text = text.replace(written, meant)
            if name == "first-node.sh":
                text = text.replace("--head", "--head --node-ip-address=127.0.0.1")
            nodes.append(started(text, **home))
            wait_for_line(nodes[-1], "Ray runtime started")
        process = started(script("on-ray.sh"), **{**home, "RAY_ADDRESS": address})
        said, _ = process.communicate(timeout=120)
    finally:
        for node in nodes:
            node.terminate()
            node.communicate()
    assert process.returncode == 0 and "faces holds 22 images" in said, said
    assert_whole(here / "faces", tiny_bundle_path)


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    """Read what a process says until it says this."""
    said = ""
    assert process.stdout is not None
    while text not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
