"""Disks that are full, limited or closed: one sentence with the remedy, and nothing is lost."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from synfer_rt.data.writers import FORMATS
from synfer_rt.errors import UserError
from tests.data.writers.small_run import assert_complete, finished, open_run

pytestmark = pytest.mark.parametrize("format", FORMATS)


def test_an_unwritable_directory_is_one_sentence(run, tmp_path, format):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot write .*`out`"):
        open_run(run, tmp_path / "file" / "out", format)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's file system users")
def test_a_directory_without_permission_is_one_sentence(run, tmp_path, format):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    # Of this thread alone; seteuid would change all threads, those of runtimes among them.
    become = ctypes.CDLL(None).setfsuid
    root = os.geteuid() == 0
    if root:
        become(65534)
    try:
        with pytest.raises(UserError, match="Permission denied"):
            open_run(run, closed / "out", format)
    finally:
        if root:
            become(0)


def test_a_path_that_is_too_long_is_one_sentence(run, tmp_path, format):
    with pytest.raises(UserError, match="shorter path"):
        open_run(run, tmp_path / ("x" * 300), format)


def test_a_disk_without_space_is_one_sentence(run, tmp_path, format, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = open_run(run, tmp_path / "out", format)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="free some space"):
        run.write(writer, 10)
        writer.finish()


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 128 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=128k", "none", str(disk)]
    if not mount or subprocess.run([mount, *options], capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_mount_point_holds_the_runs_own_folder_too(run, full_disk, format):
    assert_complete(run, finished(run, full_disk, format))
    assert (full_disk / "__run__/run.json").is_file()
    assert open_run(run, full_disk, format, resume=True).done == 10


def test_a_full_disk_is_one_sentence_and_the_run_resumes(run, full_disk, format):
    writer = open_run(run, full_disk / "out", format, 400)
    with pytest.raises(UserError, match="free some space"):
        run.write(writer, 400)
    try:
        writer.close()
    except UserError as error:
        assert "free some space" in str(error)
    subprocess.run(["mount", "-o", "remount,size=64m", str(full_disk)], check=True)
    assert_complete(run, finished(run, full_disk / "out", format, 400), 400)


FILE_LIMIT = """
import resource, sys
sys.path.insert(0, {tests!r})
from small_run import SmallRun
from pathlib import Path
from synfer_rt.errors import UserError
from synfer_rt.data.writers import open_output
run = SmallRun()
writer = open_output(Path(sys.argv[1]), run.settings(sys.argv[2], 40), resume=False)
run.write(writer, 3)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    run.write(writer, 40)
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_limit_on_file_sizes_is_one_sentence(tmp_path, format):
    script = FILE_LIMIT.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", script, str(tmp_path / "out"), format]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert "raise the limit on file sizes" in said and "`resume=True`" in said
