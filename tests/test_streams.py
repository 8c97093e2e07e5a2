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


SAMPLE = 'sample --bundle "$1" --out "$2" --count 2 --threads 1 --backend onnxruntime-cpu'


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


def with_dead(
    stream: str, kind: str, *words: object
) -> tuple[subprocess.CompletedProcess[str], str]:
    """A command of which one stream takes nothing, and what was said on the other."""
    end = dead_end(kind)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: end}
    command = [sys.executable, "-m", "synfer_rt", *map(str, words)]
    done = subprocess.run(command, **streams, text=True, check=False)  # type: ignore[call-overload]
    os.close(end)
    heard = (done.stdout or "") + (done.stderr or "")
    for said in ("Traceback", "Logging error", "Exception ignored"):
        assert said not in heard
    return done, heard


def options(engines: Path, out: Path) -> list[object]:
    return ["--bundle", engines, "--backend", "onnxruntime-cpu", "--threads", 1, "--out", out]


@pytest.mark.parametrize("kind", ["pipe", "full"])
def test_results_that_nobody_takes_keep_the_work(
    tiny_bundle_path: Path, tmp_path: Path, kind: str
) -> None:
    words = ["sample", "--count", 2, *options(tiny_bundle_path, tmp_path / "out")]
    done, heard = with_dead("stdout", kind, *words)
    assert done.returncode in (1, 2)
    assert (tmp_path / "out/metadata.jsonl").is_file()  # nothing is said there before the end
    assert ("No space left on device" in heard) == (kind == "full")


@pytest.mark.parametrize("kind", ["pipe", "full"])
def test_notes_that_nobody_takes_are_no_reason_to_stop(
    tiny_bundle_path: Path, tmp_path: Path, kind: str
) -> None:
    faces = tmp_path / "faces"
    for words in (
        ["sample", "--count", 4, *options(tiny_bundle_path, faces)],
        ["label", faces, *options(tiny_bundle_path, tmp_path / "labels.csv")],
        ["augment", faces, "--balance", 2, *options(tiny_bundle_path, tmp_path / "more")],
    ):
        done, heard = with_dead("stderr", kind, *words)
        assert done.returncode == 0 and str(words[-1]) in heard
    assert (tmp_path / "labels.csv").is_file() and (tmp_path / "more/metadata.jsonl").is_file()


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
