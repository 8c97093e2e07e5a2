"""The command where its output goes nowhere, or where not every name can be printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")


def shell(command: str, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `synfer-rt` with a command line for the shell, whose $1, $2, … are `words`."""
    line = f'exec "$0" -m synfer_rt {command}'
    arguments = ["sh", "-c", line, sys.executable, *map(os.fspath, map(str, words))]
    variables = {**os.environ, **environment}
    return subprocess.run(arguments, capture_output=True, text=True, env=variables, check=False)


SAMPLE = 'sample --engines "$1" --out "$2" --count 2 --threads 1 --backend onnxruntime-cpu'


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_nobody_needs_to_listen(tiny_bundle_path: Path, tmp_path: Path, closed: str) -> None:
    done = shell(f"{SAMPLE} {closed}", tiny_bundle_path, tmp_path / "out")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert (tmp_path / "out/metadata.jsonl").is_file()


def dead_end(kind: str) -> int:
    """Something to write to that takes nothing: a pipe without a reader, or a full disk."""
    if kind == "full":
        return os.open("/dev/full", os.O_WRONLY)
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("kind", ["pipe", "full"])
@pytest.mark.parametrize("dead", ["stdout", "stderr"])
def test_a_stream_that_takes_nothing_is_no_traceback_and_keeps_the_work(
    tiny_bundle_path: Path, tmp_path: Path, dead: str, kind: str
) -> None:
    out, end = tmp_path / "out", dead_end(kind)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, dead: end}
    options = ["--engines", str(tiny_bundle_path), "--backend", "onnxruntime-cpu"]
    options += ["--count", "2", "--threads", "1", "--out", str(out)]
    command = [sys.executable, "-m", "synfer_rt", "sample", *options]
    done = subprocess.run(command, **streams, text=True, check=False)  # type: ignore[call-overload]
    os.close(end)
    heard = (done.stdout or "") + (done.stderr or "")
    assert done.returncode in (1, 2)
    for said in ("Traceback", "Logging error", "Exception ignored"):
        assert said not in heard
    if dead == "stdout":  # nothing is said there before the end
        assert (out / "metadata.jsonl").is_file()
        assert ("No space left on device" in heard) == (kind == "full")


def test_a_full_disk_behind_the_output_is_one_sentence(tiny_bundle_path: Path) -> None:
    done = shell('inspect "$1" >/dev/full', tiny_bundle_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "No space left on device" in done.stderr


def test_a_name_that_is_no_text_is_printed_with_escapes(
    tiny_bundle_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / os.fsdecode(b"faces\xff")
    done = shell(SAMPLE, tiny_bundle_path, out, PYTHONIOENCODING="utf-8:strict")
    assert done.returncode == 0, done.stderr
    assert "faces\\udcff" in done.stdout


def test_help_is_printed_in_any_encoding() -> None:
    assert shell("sample --help", PYTHONIOENCODING="latin-1").returncode == 0
