"""The model of costs: its arithmetic, and the page that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from synfer_rt.bench import cost
from synfer_rt.bench.cost import Site, Work, checked, estimate, large, rates, small

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "results" / "cost.md"
MEASURED = ROOT / "docs" / "results" / "throughput.json"
SITE = Site(1e12, 4, 1e-3, 1e6, 100, 2, 10)


def work(**changed: float) -> Work:
    values = {"share": 0.5, "encoding": 1e-3, "size": 1e3, **changed}
    return Work("model", {"denoising": 4e9, "decoding": 1e9}, **values)


def test_a_gpu_is_as_fast_as_its_slowest_part() -> None:
    assert rates(work(), SITE, 1) == pytest.approx(
        {"denoising": 100, "Python": 1000, "PNG encoding": 4000, "storage": 1000}
    )
    assert rates(work(), SITE, 8)["storage"] == 125  # which all GPUs share
    assert estimate(work(), SITE, 1, 1000).bottleneck == "denoising"
    assert estimate(work(size=1e5), SITE, 1, 1000).bottleneck == "storage"
    assert estimate(work(encoding=1.0), SITE, 1, 1000).bottleneck == "PNG encoding"
    assert Work("model", {"denoising": 1, "decoding": 2}, 1, 1, 1).heaviest == "decoding"


def test_a_run_ends_with_the_gpu_that_has_the_most_shards() -> None:
    one = estimate(work(), SITE, 1, 1000)  # 100 s to begin, and 10 s
    assert one.hours == pytest.approx(110 / 3600) and one.price == pytest.approx(220 / 3600)
    assert one.images_per_hour == pytest.approx(1000 * 3600 / 110)
    several = estimate(work(), SITE, 8, 1000)  # 100 shards: 13 for the first GPUs
    assert several.hours == pytest.approx((100 + 130 / 100) / 3600)
    assert several.price == pytest.approx(8 * 2 * several.hours)
    few = estimate(work(), SITE, 64, 25)  # 3 shards, so 3 GPUs are paid for
    assert few.price == pytest.approx(3 * 2 * few.hours)
    assert estimate(work(), SITE, 1, 5).hours == pytest.approx((100 + 5 / 100) / 3600)


def test_operations_are_those_that_were_counted() -> None:
    result = json.loads(MEASURED.read_text())
    fast, best = (small(result, f"synfer-rt {name}", 0.1, 1e4) for name in ("fast", "best"))
    assert fast.operations["denoising"] == pytest.approx(2 * 0.8504e9, rel=1e-3)
    assert best.operations["denoising"] == pytest.approx(8 * 1.7008e9, rel=1e-3)
    assert fast.operations["labelling"] == 51003392 + 37705728 + 894448128
    step = large(2, 0.4, 1).operations["denoising"] - large(1, 0.4, 1).operations["denoising"]
    assert step == 1606.5e9


def test_the_model_is_near_what_a_cpu_measured() -> None:
    share, said, measured = checked(
        json.loads(MEASURED.read_text()), "synfer-rt best", "synfer-rt fast"
    )
    assert 0.5 < share < 1 and 0.8 < said / measured < 1.25


def test_the_page_is_what_the_command_writes(tmp_path: Path) -> None:
    words = [str(tmp_path / "cost.md"), "--measured", str(MEASURED)]
    done = CliRunner().invoke(cost.main, words)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "cost.md").read_text() == PAGE.read_text()
    assert "nothing of it was measured on a GPU" in PAGE.read_text()


def test_assumptions_are_options(tmp_path: Path) -> None:
    words = [str(tmp_path / "cost.md"), "--measured", str(MEASURED), "--price", "1.5"]
    done = CliRunner().invoke(cost.main, [*words, "--unit", "EUR", "--large-share", "0.2"])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "cost.md").read_text()
    assert "cost --large-share 0.2 --price 1.5 --unit EUR`" in text
    assert "costs 1.5 EUR an hour" in text and "20% of the peak assumed" in text
    (tmp_path / "bad.json").write_text("[]")
    done = CliRunner().invoke(cost.main, [words[0], "--measured", str(tmp_path / "bad.json")])
    assert done.exit_code == 2 and "was not written" in done.output
