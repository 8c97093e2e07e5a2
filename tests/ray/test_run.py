"""A run on a real cluster of two nodes: whatever is killed, the bytes are those of one process."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from synfer_rt.bench.faults.ray_nodes import writers
from synfer_rt.data.writers import FORMATS, run_file
from tests.commands.test_parts import run as command
from tests.commands.test_parts import settings
from tests.data.writers.test_parts import files
from tests.ray.two_nodes import cluster, kill, shards

pytest.importorskip("ray")
TOKEN = "0123456789abcdef" * 4
OPTIONS = ("--count", "110", "--shard-size", "5", "--batch", "1", "--steps", "60", "--seed", "4")


@pytest.fixture
def one(tiny_bundle_path, tmp_path):
    """The dataset that one process makes with these options."""

    def made(*options: str) -> Path:
        words = ("--bundle", tiny_bundle_path, "--backend", "onnxruntime-cpu", "--threads", 1)
        done = command("sample", *words, *options, "--out", tmp_path / "one")
        assert done.exit_code == 0, done.output
        return tmp_path / "one"

    return made


def assert_same(out: Path, one: Path) -> None:
    """Two finished runs have the same bytes and settings, and nothing else in their own folders."""
    assert files(out) == files(one)
    assert settings(out) == settings(one)
    names = [{path.name for path in run_file.folder(place).iterdir()} for place in (out, one)]
    assert names[0] == names[1]
    assert command("verify", out).exit_code == command("status", out).exit_code == 0


def test_workers_driver_and_node_are_killed_and_the_bytes_are_those_of_one_process(
    tiny_bundle_path, tmp_path, one
):
    """A cluster that asks for a token, and a run whose acceptance is decided at the end."""
    out = tmp_path / "out"
    options = (*OPTIONS, "--format", "webdataset", "--accept-rate", "0.4")
    expected = one(*options)
    with cluster(tiny_bundle_path, tmp_path, TOKEN) as ray:
        (node,) = ray.ray.worker_nodes
        driver = ray.driver(*options, "--out", str(out))
        kill(driver.until(lambda: shards(out) > 1 and ray.writing(ray.ray.head_node, out)).pop())
        before = shards(out)
        driver.until(lambda: shards(out) > before + 2)
        driver.end(signal.SIGKILL)
        driver.wait()
        assert not (out / "000000.tar").exists()  # nothing is decided
        before = shards(out)
        driver = ray.driver(*options, "--out", str(out), "--resume")
        driver.until(lambda: shards(out) > before + 2 and ray.writing(node, out))
        ray.remove(node)
        assert shards(out) < 22
        code, said = driver.wait()
    assert code == 0, said
    assert "of 110 images are there." in said
    assert f"out holds 110 images; look at {run_file.folder(out)}" in said, said
    assert_same(out, expected)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_survives_workers_that_are_killed(tiny_bundle_path, tmp_path, one, format):
    out, killed = tmp_path / "out", set[int]()
    options = (*OPTIONS, "--format", format, "--threshold", "0.3")
    with cluster(tiny_bundle_path, tmp_path) as ray:
        driver = ray.driver(*options, "--out", str(out))
        for _ in range(5):
            process = driver.until(lambda: writers(out) - killed).pop()
            kill(process)
            killed.add(process)
        code, said = driver.wait()
    assert code == 0, said
    assert_same(out, one(*options))


@pytest.mark.slow
def test_quotas_are_requested_as_by_one_process(tiny_bundle_path, tmp_path, one):
    out = tmp_path / "out"
    options = ("--count", "3", "--count-accepted", "--threshold", "0.15", "--budget", "90")
    options = (*options, "--shard-size", "5", "--batch", "5", "--format", "webdataset")
    expected = one(*options)
    with cluster(tiny_bundle_path, tmp_path) as ray:
        driver = ray.driver(*options, "--out", str(out))
        kill(driver.until(lambda: writers(out)).pop())
        driver.until(lambda: shards(out) > 1)
        ray.remove(*ray.ray.worker_nodes)
        code, said = driver.wait()
    assert code == 0, said
    assert_same(out, expected)


@pytest.mark.slow
def test_ctrl_c_ends_the_actors_and_the_run_goes_on(tiny_bundle_path, tmp_path, one):
    out = tmp_path / "out"
    options = (*OPTIONS, "--format", "parquet")
    with cluster(tiny_bundle_path, tmp_path) as ray:
        driver = ray.driver(*options, "--out", str(out))
        driver.until(lambda: shards(out) > 2 and len(writers(out)) == 2)
        processes = writers(out)
        driver.end(signal.SIGINT)
        code, said = driver.wait()
        assert code == 130
        assert "of 110 images written; run the same again with --resume to continue" in said
        assert not any(Path(f"/proc/{number}").exists() for number in processes)
        code, said = ray.driver(*options, "--out", str(out)).wait()
        assert code == 2 and "already holds a run; continue it with --resume" in said
        code, said = ray.driver(*options, "--out", str(out), "--resume").wait()
        assert code == 0, said
        code, said = ray.driver(*options, "--out", str(out), "--resume").wait()
        assert code == 0 and "already holds all 110 images" in said, said
    assert_same(out, one(*options))


@pytest.mark.slow
def test_what_no_worker_can_do_ends_the_run_with_its_sentence(tiny_bundle_path, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text('count = 12\nshard_size = 4\nformat = "parquet"\n[splits]\na = 0.5\nb = 0.5\n')
    with cluster(tiny_bundle_path, tmp_path) as ray:
        code, said = ray.driver("--backend", "onnxruntime-coreml", "--out", "no").wait()
        assert code == 2 and "Error: Unknown backend" in said, said
        code, said = ray.driver("--backend", "onnxruntime-cuda", "--out", "no").wait()
        assert code == 2 and "has a GPU for a worker" in said, said
        code, said = ray.driver("--out", "no", "--part", "0/2").wait()
        assert code == 2 and "leave out --part, or --ray" in said
        code, said = ray.driver("--out", "s3://bucket/no").wait()
        assert code == 2 and "into a folder that all see, not into a store" in said
        assert not (tmp_path / "no").exists() and not (tmp_path / "__no__").exists()
        code, said = ray.driver("--plan", str(plan), "--out", "planned").wait()
        assert code == 0, said
    words = ("--bundle", tiny_bundle_path, "--backend", "onnxruntime-cpu", "--threads", 1)
    made = command("sample", "--plan", plan, *words, "--out", tmp_path / "one")
    assert made.exit_code == 0, made.output
    for split in "ab":
        assert_same(tmp_path / "planned" / split, tmp_path / "one" / split)


@pytest.mark.slow
def test_a_cluster_that_asks_for_a_token_says_so(tiny_bundle_path, tmp_path):
    with cluster(tiny_bundle_path, tmp_path, TOKEN) as ray:
        for given in {}, {"RAY_AUTH_TOKEN": "f" * 64, "RAY_AUTH_MODE": "token"}:
            without = {"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN_PATH": "", **given}
            code, said = ray.driver("--out", "no", "--count", "4", **without).wait()
            assert code == 2 and "RAY_AUTH_MODE=token" in said, said
            assert not (tmp_path / "no").exists() and not (tmp_path / "__no__").exists()
