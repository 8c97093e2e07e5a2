"""What is read from a GPU while something runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from synfer_rt.bench import gpu_monitor
from synfer_rt.bench.gpu_monitor import Meter, NvidiaSmi, Nvml, Reading, Usage, Watch, open_meter
from tests.bench.fake_nvml import Card, FakeNvml, NVMLError


def watched(meter: Meter | None, seconds: float) -> Usage | None:
    with Watch(meter) as watch:
        time.sleep(seconds)
    return watch.usage()


def test_percent_and_milliwatts_become_shares_and_watts():
    reading = Nvml(FakeNvml(Card(percent=[93], used=[3 * 2**30], milliwatts=[412_500])), "0").read()
    assert reading == Reading(0.93, 3 * 2**30, 412.5)


def test_usage_is_the_mean_and_the_most_of_the_readings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Nvml, "interval", 0.01)
    card = Card(percent=[40, 60, 50], used=[5, 9, 7], milliwatts=[100_000, 300_000, 200_000])
    usage = watched(Nvml(FakeNvml(card), "0"), 0.2)
    assert usage is not None
    assert usage.busy == pytest.approx(0.5) and usage.watts == pytest.approx(200)
    assert (usage.memory_bytes, usage.source) == (9, "NVML")
    assert 0.2 <= usage.seconds < 5


def test_energy_is_what_the_card_counted():
    usage = watched(Nvml(FakeNvml(Card(millijoules=[5_000, 65_000])), "0"), 0.05)
    assert usage is not None and usage.joules == pytest.approx(60)


def test_energy_follows_from_power_where_the_card_counts_none():
    card = Card(milliwatts=[250_000], refuses=("millijoules",))
    usage = watched(Nvml(FakeNvml(card), "0"), 0.1)
    assert usage is not None and usage.joules == pytest.approx(250 * usage.seconds)


def test_what_a_part_of_a_gpu_does_not_tell_is_unknown():
    card = Card(refuses=("percent", "milliwatts", "millijoules"))
    usage = watched(Nvml(FakeNvml(card), "0"), 0.05)
    assert usage is not None
    assert (usage.busy, usage.watts, usage.joules) == (None, None, None)
    assert usage.memory_bytes == 2**30


def test_utilisation_from_before_the_block_does_not_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Nvml, "interval", 0.05)
    monkeypatch.setattr(gpu_monitor, "_LOOKS_BACK", 0.15)
    usage = watched(Nvml(FakeNvml(Card(percent=[0, 100])), "0"), 0.4)
    assert usage is not None and usage.busy == 1.0


def test_a_short_block_is_told_by_the_readings_that_there_are():
    usage = watched(Nvml(FakeNvml(Card(percent=[70])), "0"), 0.0)
    assert usage is not None and usage.busy == pytest.approx(0.7)


def test_without_a_meter_there_is_no_usage():
    assert watched(None, 0.0) is None


def test_the_card_is_the_first_that_cuda_sees(monkeypatch: pytest.MonkeyPatch):
    nvml = FakeNvml(Card("GPU-a", used=[1]), Card("GPU-b", used=[2]))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    for visible, used in (
        ("", None),
        ("-1", None),
        ("1,0", 2),
        ("GPU-b", 2),
        ("0", 1),
        ("7", None),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        meter = open_meter()
        assert (None if meter is None else meter.read().memory_bytes) == used, visible
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    meter = open_meter()
    assert meter is not None and meter.read().memory_bytes == 1


def test_no_driver_is_no_meter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    with pytest.raises(NVMLError):
        Nvml(FakeNvml(), "0")
    assert open_meter() is None


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program nvidia-smi that writes the file `says`; nvidia-ml-py is not installed."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {tmp_path}/says\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    return tmp_path / "says"


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_nvidia_smi_tells_where_the_package_is_missing(nvidia_smi: Path):
    nvidia_smi.write_text("87, 2048, 301.25\n")
    meter = open_meter()
    assert isinstance(meter, NvidiaSmi)
    assert meter.read() == Reading(0.87, 2048 * 2**20, 301.25)
    assert (
        "-i 0 --query-gpu=utilization.gpu,memory.used,power.draw"
        in (nvidia_smi.parent / "asked").read_text()
    )
    usage = watched(meter, 0.05)
    assert usage is not None and usage.joules == pytest.approx(301.25 * usage.seconds)


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_what_nvidia_smi_does_not_know_is_unknown(nvidia_smi: Path):
    nvidia_smi.write_text("[N/A], 512, [Not Supported]\n")
    assert NvidiaSmi("0").read() == Reading(None, 512 * 2**20, None)


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_nvidia_smi_without_a_gpu_is_no_meter(nvidia_smi: Path):
    nvidia_smi.write_text("No devices were found\nat all\n")
    assert open_meter() is None
    (nvidia_smi.parent / "nvidia-smi").unlink()
    assert open_meter() is None
