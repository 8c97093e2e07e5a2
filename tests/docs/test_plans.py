"""The plans of docs/plans.md, made with a tiny bundle."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from synfer_rt.api import Model
from synfer_rt.bundle import Bundle
from synfer_rt.data.writers import read
from synfer_rt.jobs.plan.fields import KEYS
from synfer_rt.vocabulary.class_counts import CLASS_COUNTS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "plans.md").read_text()
FILES = dict(re.findall(r"^`([\w-]+\.\w+)`:\n\n```\w+\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))
PLANS = [name for name in FILES if not name.endswith(".csv")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_page_has_plans():
    assert len(PLANS) == 5


@pytest.mark.parametrize("name", [name for name in PLANS if "affectnet" not in name])
def test_a_plan_is_made_as_it_is_previewed(folder: Path, tiny_bundle: Bundle, name: str):
    model = Model(tiny_bundle, "onnxruntime-cpu", 1)
    found = model.preview(folder / name, measure=False)
    made: Counter[str] = Counter()
    for written in model.write_plan(folder / name, folder / "out"):
        made.update(record["requested_label"] for record, _ in read(Path(written.path)))
    previewed: Counter[str] = Counter()
    for counts in found.classes.values():
        previewed.update(counts)
    assert made == previewed and made.total() == found.count


def test_the_plans_of_affectnet_have_its_counts_and_shares(folder: Path, tiny_bundle: Bundle):
    model, counts = Model(tiny_bundle, "onnxruntime-cpu", 1), CLASS_COUNTS["affectnet-8"]
    assert model.preview(folder / "affectnet.yaml", measure=False).classes == {"": counts}
    small = model.preview(folder / "small-affectnet.toml", measure=False).classes[""]
    assert sum(small.values()) == 1000
    assert all(abs(small[x] - 1000 * n / 287_651) < 1 for x, n in counts.items())


def test_the_table_of_sets_has_their_numbers():
    for name in ("affectnet-8", "raf-db"):
        (row,) = re.findall(rf"^\| `{name}` \| (.*?) \|", PAGE, re.MULTILINE)
        assert row == ", ".join(f"{x} {n:,}" for x, n in CLASS_COUNTS[name].items())


def test_the_table_of_keys_has_the_plans_own():
    own = KEYS[: KEYS.index("out") + 1]
    table = PAGE[PAGE.index("## Everything else") :]
    assert not [key for key in own if f"`{key}`" not in table]
