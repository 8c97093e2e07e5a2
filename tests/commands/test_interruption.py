"""What signals do to real processes of `synfer-rt`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synfer_rt.data.writers import run_file

if os.name == "nt":
    pytest.skip("needs POSIX signals", allow_module_level=True)

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Processes started here can be interrupted, which those of a test worker ignore."""
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def begin(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "synfer_rt", *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def wait_for(process: subprocess.Popen[str], there: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ended(process: subprocess.Popen[str], number: int) -> str:
    """The last line of what an interrupted command says."""
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    return said.splitlines()[-1]


def journal(out: Path) -> Path:
    """Where an image folder's lines are while the run goes on."""
    return run_file.folder(out) / "metadata.jsonl.partial"


RUNNING = ("--threads", 1, "--backend", "onnxruntime-cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw = np.random.default_rng(3)
    for name, count in {"happy": 40, "sad": 2}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            pixels = draw.integers(0, 256, (400, 400, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"photos/{name}/{i}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("number", ENDING)
def test_sample_keeps_what_is_finished_and_says_how_to_go_on(
    tiny_bundle_path: Path, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "out"
    options = ("--bundle", tiny_bundle_path, "--out", out, "--batch", 100_000, *RUNNING)
    process = begin("sample", *options, "--count", 100_000)
    wait_for(process, lambda: list(out.rglob("*.png")))
    said = ended(process, number)
    whole = journal(out).read_text().splitlines()
    assert said == (
        f"Interrupted with {len(whole)} of 100000 images written; run the same again with "
        "--resume to continue."
    )
    assert whole and json.loads(whole[-1])["index"] == len(whole) - 1


@pytest.mark.parametrize("number", ENDING)
def test_augment_keeps_what_is_finished_and_says_how_to_go_on(
    tiny_bundle_path: Path, photos: Path, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "out"
    options = ("--bundle", tiny_bundle_path, "--out", out, "--batch", 100_000, *RUNNING)
    process = begin("augment", photos, *options, "--balance", 50_000)
    wait_for(process, lambda: (out / "happy/00000000.png").exists())
    assert "--resume" in ended(process, number)
    assert journal(out).stat().st_size > 0


@pytest.mark.parametrize("number", ENDING)
def test_label_keeps_what_is_finished_and_says_how_to_go_on(
    tiny_bundle_path: Path, photos: Path, tmp_path: Path, number: int
) -> None:
    for i in range(3000):
        os.link(photos / "happy/0.png", photos / f"happy/more-{i}.png")
    table = tmp_path / "labels.jsonl"
    options = ("--bundle", tiny_bundle_path, "--out", table, "--batch", 100_000, *RUNNING)
    process = begin("label", photos, *options)
    journal = tmp_path / "labels.jsonl.partial"
    wait_for(process, lambda: journal.exists() and journal.read_bytes().count(b"\n") > 1)
    lines = int(ended(process, number).split()[2])
    assert 0 < lines < 3000 and journal.read_bytes().count(b"\n") == lines + 1


def test_build_engines_says_how_to_go_on(mini_checkpoint: Path, tmp_path: Path) -> None:
    process = begin("build-engines", mini_checkpoint, "--out", tmp_path / "bundle")
    wait_for(process, (tmp_path / "bundle.log").exists)
    assert "run the same command" in ended(process, signal.SIGTERM)
    assert not (tmp_path / "bundle").exists()


WITH_PROCESSES = """
import os, time
from synfer_rt.commands.interruption import interrupted_by_signals
from synfer_rt.fresh_processes import fresh_processes
if __name__ == "__main__":
    with interrupted_by_signals(), fresh_processes(2) as pool:
        number = pool.submit(os.getpid).result()
        print(number, flush=True)
        list(pool.map(time.sleep, [600, 600]))
"""


@pytest.mark.parametrize("number", ENDING)
def test_processes_end_with_the_one_that_began_them(tmp_path: Path, number: int) -> None:
    (tmp_path / "script.py").write_text(WITH_PROCESSES)
    command = [sys.executable, str(tmp_path / "script.py")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    time.sleep(0.5)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert said.count("Traceback") == 1 and "Interrupted" in said.splitlines()[-1]
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


SWALLOWING = """
import signal, sys
from synfer_rt.commands.interruption import interrupted_by_signals
from synfer_rt.commands.progress import ProgressBar
from synfer_rt.jobs.progress import Progress
with interrupted_by_signals(), ProgressBar() as show:
    show(Progress(1, 10))
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:
        print("swallowed")
    show(Progress(2, 10))
"""


def test_a_signal_counts_where_its_exception_is_swallowed() -> None:
    command = [sys.executable, "-c", SWALLOWING]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "swallowed\n" and done.stderr.splitlines()[-1].endswith("Interrupted")


MISTAKEN = """
import signal
from unittest.mock import patch
from synfer_rt.commands.cli import main
from synfer_rt.errors import UserError
def missing(*_, **__):
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:
        raise {error} from None
with patch("synfer_rt.bundle.open_bundle", missing):
    main(["sample", "--out", "nowhere"])
"""


@pytest.mark.parametrize(
    "error", ["UserError('onnxruntime is not installed')", "ImportError('x')", "OSError(5, 'x')"]
)
def test_what_code_makes_of_a_signal_is_still_an_interruption(error: str) -> None:
    command = [sys.executable, "-c", MISTAKEN.format(error=error)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 143 and done.stderr == "Interrupted.\n"


BUSY = """
import hashlib, sys
from synfer_rt.commands.interruption import interrupted_by_signals
with interrupted_by_signals():
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)  # a call of many minutes
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(number: int) -> None:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=pipe, stderr=pipe)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        time.sleep(0.5)  # the call has begun
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGHUP)  # systemd sends both: no second wish
        time.sleep(1.5)  # half a second would do on an idle machine
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=30) == 128 + number
    finally:
        process.kill()
        process.communicate()


def test_a_terminal_that_is_gone_ends_the_run(tiny_bundle_path: Path, tmp_path: Path) -> None:
    import fcntl
    import pty
    import termios

    terminal, slave = pty.openpty()
    out = tmp_path / "out"
    command = [sys.executable, "-m", "synfer_rt", "sample", "--bundle", str(tiny_bundle_path)]
    command += ["--out", str(out), "--count", "100000", *map(str, RUNNING)]
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    wait_for(process, lambda: list(out.rglob("*.png")))
    os.close(terminal)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert journal(out).stat().st_size > 0


def test_a_signal_that_is_ignored_stays_so(tiny_bundle_path: Path, tmp_path: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    out = tmp_path / "out"
    options = ("--bundle", tiny_bundle_path, "--out", out, *RUNNING)
    process = begin("sample", *options, "--count", 300)
    wait_for(process, lambda: run_file.exists(out))
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
