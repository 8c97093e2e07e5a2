"""The page of a run: its data and figures against a recount of the run."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synfer_rt import UserError, write_report
from synfer_rt.bench.host_side import InstantEngines
from synfer_rt.data.writers import FORMATS, open_output
from synfer_rt.data.writers.shards import Part
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.report.columns import Columns
from synfer_rt.report.facts import facts_of
from synfer_rt.report.intervals import wilson
from tests.report.conftest import write
from tests.report.pages import MARKUP, Page, opened, table


def metadata(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def page(runs: Path) -> Page:
    made = write_report(runs / "faces", page=runs / "faces.html")
    assert made.bytes == (runs / "faces.html").stat().st_size
    assert made.images == made.shown == (60,) and made.embedded == (True,)
    return opened(runs / "faces.html")


def test_every_record_is_in_the_page_as_it_was_written(page: Page, runs: Path):
    records = metadata(runs / "faces")
    assert page.records() == records
    assert {*records[0]} == {*page.records()[0]}


def test_every_image_file_is_in_the_page_as_it_was_written(page: Page, runs: Path):
    files = [(runs / "faces" / record["file_name"]).read_bytes() for record in page.records()]
    assert page.files("files") == files


def test_thumbnails_show_the_images(page: Page):
    def pixels(content: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), float)

    images = np.stack([pixels(file) for file in page.files("files")[:6]])  # no two are equal
    for place, thumbnail in enumerate(page.files("thumbnails")[:6]):
        assert np.abs(images - pixels(thumbnail)).mean((1, 2, 3)).argmin() == place


def test_the_classes_are_counted(page: Page, runs: Path):
    records = metadata(runs / "faces")
    requested = Counter(record["requested_label"] for record in records)
    labelled = Counter(record["label"] for record in records)
    accepted = Counter(record["label"] for record in records if record["accepted"])
    _, *rows = table(page, "classes")
    for name, *cells in rows[:-1]:
        assert cells[:3] == [str(count[name]) for count in (requested, labelled, accepted)]
        low, high = wilson(accepted[name], labelled[name])
        assert cells[3] == f"{100 * accepted[name] / labelled[name]:.1f}\u202f%"
        assert cells[4].endswith(f"{100 * low:.1f}\u2013{100 * high:.1f}")
    assert {row[0] for row in rows[:-1]} == {*requested, *labelled}
    assert rows[-1][:4] == ["all", "60", "60", str(accepted.total())]


def test_requested_and_voted_labels_are_compared(page: Page, runs: Path):
    counts: Counter[tuple[str, str]] = Counter()
    for record in metadata(runs / "faces"):
        voted = max(record["probabilities"], key=record["probabilities"].__getitem__)
        counts[record["requested_label"], voted] += 1
    head, *rows = table(page, "confusion")
    for name, *cells in rows[:-1]:
        for voted, cell in zip(head[1:-1], cells[:-1], strict=True):
            assert cell == (str(counts[name, voted]) if counts[name, voted] else "·")
    agree = sum(count for (one, other), count in counts.items() if one == other)
    assert rows[-1][1] == f"{agree} of 60"


def test_confidence_and_vote_follow_from_the_probabilities(page: Page, runs: Path):
    records = metadata(runs / "faces")
    assert page.derived("confidence") == [r["probabilities"][r["label"]] for r in records]
    states = {True: "accepted", False: "not accepted"}
    assert page.derived("accepted") == [states[record["accepted"]] for record in records]


def test_people_are_those_of_the_prompts(page: Page, runs: Path):
    records = metadata(runs / "faces")
    elderly = [r for r in records if " elderly " in r["prompt"] or " old " in r["prompt"]]
    rows = {row[0]: row for row in table(page, "people") if len(row) == 5}
    assert rows["elderly"][1] == str(len(elderly))
    accepted = sum(record["accepted"] for record in elderly) / len(elderly)
    assert rows["elderly"][3] == f"{100 * accepted:.1f}\u202f%"
    assert sum(int(rows[word][1]) for word in ("female", "male")) == 60


def test_action_units_are_averaged_in_each_class(page: Page, runs: Path):
    records = metadata(runs / "faces")
    head, *rows = table(page, "units")
    by_name = {row[0]: row for row in rows}
    happy = [r["aus"]["AU12"] for r in records if r["label"] == "happy"]
    place = head.index("happy") + 1  # the first heading is above two columns
    assert by_name["AU12"][place] == f"{np.mean(happy):.2f}".removeprefix("0")
    above = [record["aus"]["AU12"] for record in records if record["aus"]["AU12"] > 0.05]
    assert by_name["AU12"][2] == f"{100 * len(above) / 60:.1f}\u202f%"
    assert "L12" not in by_name  # as AU12 in every image


def test_equal_images_are_each_others_nearest(page: Page, runs: Path):
    """The engines repeat six pictures."""
    nearest = [int(image) for image in page.derived("nearest")]
    files = page.files("files")
    assert all(files[i] == files[other] for i, other in enumerate(nearest))
    assert nearest[:14] == [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 0, 1]
    assert set(page.derived("distance")) == {0}


def test_the_same_run_gives_the_same_page(page: Page, runs: Path):
    write_report(runs / "faces", page=runs / "faces.html")
    assert (runs / "faces.html").read_text(encoding="utf-8") == page.text


def test_no_text_of_a_run_is_markup(runs: Path, tmp_path: Path):
    write_report(runs / MARKUP, page=tmp_path / "page.html")
    page = opened(tmp_path / "page.html")
    assert MARKUP not in page.text and "</script> &" not in page.text
    assert MARKUP in page.records()[0]["prompt"] and page.manifest["runs"][0]["name"] == MARKUP


def test_the_policy_forbids_all_addresses(page: Page):
    policy = page.text.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "; img-src data:; base-uri 'none'; form-action 'none'" in policy
    assert "http" not in policy and "unsafe" not in policy


def test_large_image_files_are_linked_where_they_lie(runs: Path):
    made = write_report(runs / "faces", page=runs / "small.html", embed=0)
    page = opened(runs / "small.html")
    assert made.embedded == (False,) and "files" not in page.manifest["runs"][0]
    assert page.manifest["runs"][0]["folder"] == "faces/"
    assert "img-src data: file:;" in page.text and len(page.files("thumbnails")) == 60


def test_a_gallery_of_some_images_leaves_the_counts_as_they_are(runs: Path):
    made = write_report(runs / "faces", page=runs / "some.html", gallery=7)
    page = opened(runs / "some.html")
    assert made.images == (60,) and made.shown == (7,)
    everyone = metadata(runs / "faces")
    assert page.records() == [everyone[i * 60 // 7] for i in range(7)]
    assert table(page, "classes")[-1][1] == "60" and "7 images, evenly spread" in page.text


@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_shards_are_shown_as_folders_are(
    page: Page, instant: InstantEngines, tmp_path: Path, format: str
):
    out = write(instant, tmp_path / "faces", format, count=60)
    write_report(out, page=tmp_path / "page.html")
    sharded = opened(tmp_path / "page.html")
    left_out = {"file_name"}
    assert [{k: r[k] for k in r.keys() - left_out} for r in sharded.records()] == [
        {k: r[k] for k in r.keys() - left_out} for r in page.records()
    ]
    assert sharded.files("files") == page.files("files")
    assert table(sharded, "confusion") == table(page, "confusion")


def test_two_runs_stand_side_by_side(runs: Path):
    made = write_report(runs / "faces", runs / MARKUP, page=runs / "two.html")
    page = opened(runs / "two.html")
    assert made.images == (60, 8)
    assert [run["letter"] for run in page.manifest["runs"]] == ["a", "b"]
    assert [len(page.records(run)) for run in (0, 1)] == [60, 8]
    assert page.text.count('href="#gallery?run=b&amp;label=happy"') == 1


def test_a_run_that_is_not_finished_is_refused(runs: Path, tmp_path: Path, instant: InstantEngines):
    out = write(instant, tmp_path / "faces", count=8)
    (tmp_path / "__faces__" / "metadata.jsonl.partial").touch()
    with pytest.raises(UserError, match="is not finished"):
        write_report(out, page=tmp_path / "page.html")


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_that_lacks_a_part_is_refused(format: str, tmp_path: Path, instant: InstantEngines):
    """Between two parts nothing in the folder grows, and only a shard is missing."""
    run = make_run(instant.bundle, count=12)
    out = tmp_path / "faces"
    for part in (0, 2):
        settings = run.settings(format)
        writer = open_output(out, settings, resume=False, shard_size=4, part=Part(part, 3))
        execute(run, instant, writer, 4)
    with pytest.raises(UserError, match=r"not finished \(1 of its 3 shards are missing\); run its"):
        write_report(out, page=tmp_path / "page.html")
    assert not list(tmp_path.glob("*page*"))


@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_a_run_with_too_few_images_is_refused(format: str, tmp_path: Path, instant: InstantEngines):
    out = write(instant, tmp_path / "a", format, count=8)
    other = write(instant, tmp_path / "b", format, count=6)
    (shard,) = (file for file in other.iterdir() if file.suffix in (".tar", ".parquet"))
    shutil.copy(shard, out)
    with pytest.raises(UserError, match=r"`synfer-rt verify .*a` lists what is wrong"):
        write_report(out, page=tmp_path / "page.html")
    assert not list(tmp_path.glob("*page*"))


def test_a_page_that_cannot_be_written_is_refused_before_the_work(runs: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    done: list[object] = []
    with pytest.raises(UserError, match=r"Cannot write .*page\.html \(.*choose another `page`"):
        write_report(runs / "faces", page=tmp_path / "file" / "page.html", on_progress=done.append)
    assert not done


def test_a_run_without_one_of_its_images_is_refused(tmp_path: Path, instant: InstantEngines):
    out = write(instant, tmp_path / "faces", count=8)
    next(out.glob("*/*.png")).unlink()
    with pytest.raises(UserError, match=r"`synfer-rt verify .*faces` lists what is wrong"):
        write_report(out, page=tmp_path / "page.html")
    assert not list(tmp_path.glob("*page*"))


def test_a_page_never_replaces_something_else_nor_lies_among_the_samples(
    runs: Path, tmp_path: Path
):
    (tmp_path / "notes.html").write_text("mine")
    with pytest.raises(UserError, match="is no report of synfer-rt"):
        write_report(runs / "faces", page=tmp_path / "notes.html")
    assert (tmp_path / "notes.html").read_text() == "mine"
    with pytest.raises(UserError, match="must not lie among the samples"):
        write_report(runs / "faces", page=runs / "faces" / "happy" / "page.html")
    with pytest.raises(UserError, match="is a directory"):
        write_report(runs / "faces", page=tmp_path)


def test_an_evaluation_is_shown(runs: Path, tmp_path: Path):
    own = runs / "__faces__" / "evaluation.json"
    units = {"AU1": {"r": 0.5, "interval": [0.25, 0.75]}, "AU2": {"r": 0.125, "interval": None}}
    found = {"FID": 12.3456789, "judge": "<a>", "distances": None, "units": units}
    found |= {name: {"x": 1, "y": {"z": 2}} for name in ("c", "a", "b")}
    own.write_text(json.dumps({**found, "notes": ["Few images."], "run": {"name": "faces"}}))
    try:
        write_report(runs / "faces", page=tmp_path / "page.html")
    finally:
        own.unlink()
    page = opened(tmp_path / "page.html")
    assert table(page, "evaluation") == [["FID", "12.35"], ["judge", "&lt;a&gt;"]]
    rows = [["", "r", "interval"], ["AU1", "0.5", "0.25 to 0.75"], ["AU2", "0.125", ""]]
    assert table(page, "evaluation", 1) == rows and "Few images." in page.text
    captions = re.findall("<caption>(.*?)</caption>", page.text)
    assert captions == ["units", *(x for name in "cab" for x in (name, f"{name} · y")), "run"]


def test_originals_of_augment_are_not_judged():
    columns = Columns()
    for origin, share in ("original", 0.0), ("augmented", 0.9), ("augmented", 0.8):
        columns.add(
            {
                "requested_label": "sad",
                "label": "sad",
                "origin": origin,
                "accepted": share > 0.85,
                "probabilities": {"happy": (1 - share) * (share > 0), "sad": share},
            }
        )
    facts = facts_of(columns, {"classes": ["happy", "sad"]})
    assert facts.hits == (1, 2) and facts.hits_of(facts.label) == [(0, 0), (1, 2)]
    assert facts.label.count(facts.readable).tolist() == [0, 3]
