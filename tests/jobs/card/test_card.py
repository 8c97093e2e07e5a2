"""The dataset card of a finished run: what it says, and that it hurts no reader."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import ClassLabel, Image, load_dataset
from datasets.exceptions import NonMatchingSplitsSizesError

from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.writers import FORMATS, open_output, run_file
from synfer_rt.jobs.card.card import write_card
from synfer_rt.jobs.card.header import header, size_category
from synfer_rt.jobs.card.text import text
from synfer_rt.jobs.class_tally import tally
from synfer_rt.jobs.verify import faults, settings_of
from tests.data.writers.small_run import CLASSES, SmallRun

RUN = SmallRun()


def write(out: Path, format: str, count: int = 10) -> Path:
    """A finished run, in shards of 4 images where there are shards, with its card's path."""
    writer = open_output(
        out, RUN.sample_settings(format, count), resume=True, shard_size=RUN.shard_size
    )
    RUN.write(writer, count)
    writer.finish()
    return write_card(out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in each format, with its card."""
    root = tmp_path_factory.mktemp("cards")
    for format in FORMATS:
        write(root / format, format)
    return root


def front_matter(card: Path) -> dict[str, Any]:
    """The header as YAML's own reader reads it."""
    _, head, _ = card.read_text().split("---\n", 2)
    return yaml.safe_load(head)


@pytest.mark.parametrize(
    ("format", "place"),
    [
        ("imagefolder", "imagefolder/README.md"),
        ("webdataset", "webdataset/README.md"),
        ("parquet", "__parquet__/README.md"),
    ],
)
def test_the_card_lies_where_no_reader_of_the_format_trips_over_it(runs, format, place):
    card = runs / place
    head = front_matter(card)
    assert head["license"] == "unknown" and head["size_categories"] == ["n<1K"]
    assert head["task_categories"] == ["image-classification"]
    assert head["pretty_name"] == "Facial expressions, sampled from tiny 1.2"
    hidden = runs / format / ".huggingface.yaml"
    if format == "parquet":
        assert yaml.safe_load(hidden.read_text()) == head
    else:
        assert not hidden.exists()


def loaded(out: Path, cache: Path, **keywords: Any) -> Any:
    return load_dataset(str(out), split="train", cache_dir=str(cache), **keywords)


@pytest.mark.parametrize("format", FORMATS)
def test_datasets_knows_classes_images_and_action_units(runs, tmp_path, format):
    faces = loaded(runs / format, tmp_path)
    shards = format == "webdataset"
    of_record = faces.features["json"] if shards else faces.features
    for label in (of_record["label"], of_record["requested_label"]):
        assert isinstance(label, ClassLabel) and label.names == CLASSES
    assert isinstance(faces.features["png" if shards else "image"], Image)
    assert set(of_record["aus"]) == {"AU6", "AU12"}
    flat = faces.flatten()
    unit = flat["json.aus.AU12" if shards else "aus.AU12"]
    number = faces["cls"] if shards else faces["label"]
    for index, row in enumerate(faces):
        record = RUN.record(index)
        assert CLASSES[number[index]] == record["label"]
        assert unit[index] == record["aus"]["AU12"]
        row = row["json"] if shards else row
        for name in ("label", "requested_label"):
            assert CLASSES[row[name]] == record.pop(name)
        assert {name: row[name] for name in record} == record


@pytest.mark.parametrize("format", FORMATS)
def test_streaming_knows_classes_too(runs, tmp_path, format):
    first = next(iter(loaded(runs / format, tmp_path, streaming=True)))
    assert first["cls" if format == "webdataset" else "label"] == 0


def test_datasets_notices_a_lost_shard(tmp_path):
    write(tmp_path / "out", "parquet")
    (tmp_path / "out/data-00001.parquet").unlink()
    with pytest.raises(NonMatchingSplitsSizesError):
        loaded(tmp_path / "out", tmp_path / "cache")


@pytest.mark.parametrize("format", FORMATS)
def test_a_split_of_a_plan_has_its_name(tmp_path, format):
    write(tmp_path / "out", format)
    path = run_file.path(tmp_path / "out")
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "split": "val-1", "splits": {"val-1": 1.0}}))
    card = write_card(tmp_path / "out")
    assert 'load_dataset("PATH", split="val_1")' in card.read_text()
    found = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in found.items()} == {"val_1": 10}


def test_arrow_reads_the_folder_of_a_parquet_run(runs):
    assert pq.read_table(runs / "parquet").num_rows == 10


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("own", [False, True])
def test_our_readers_pass_over_the_card(tmp_path, format, own):
    """Also over a card that a user has changed, or laid there to publish the folder."""
    card = write(tmp_path / "out", format)
    if own:
        (tmp_path / "out/README.md").write_bytes(b"# Mine\n" + card.read_bytes())
    found = read_dataset(tmp_path / "out")
    assert len(found.items) == 10 and not found.skipped
    assert not list(faults(tmp_path / "out", settings_of(tmp_path / "out")))


@pytest.mark.parametrize("format", FORMATS)
def test_a_card_depends_on_settings_and_samples_alone(runs, tmp_path, format):
    card = write(tmp_path / "other name", format)
    before = runs / format / "README.md"
    before = before if before.exists() else runs / f"__{format}__/README.md"
    assert card.read_bytes() == before.read_bytes()
    assert str(tmp_path) not in card.read_text()


def test_a_card_is_renewed_with_its_run(tmp_path):
    card = write(tmp_path / "out", "imagefolder")
    (tmp_path / "out/happy/00000001.png").unlink()
    old = card.read_bytes()
    settings = run_file.path(tmp_path / "out")
    settings.write_text(settings.read_text().replace('"1.2"', '"1.3"'))
    assert write(tmp_path / "out", "imagefolder") == card
    assert b"tiny 1.3" in card.read_bytes() != old


@pytest.mark.parametrize("change", ["", "# My own card\n"])
def test_a_card_of_the_user_stays(tmp_path, change):
    card = write(tmp_path / "out", "imagefolder")
    mine = change or card.read_text().replace("license: unknown", "license: mit")
    card.write_text(mine)
    again = write_card(tmp_path / "out")
    assert card.read_text() == mine
    assert again == tmp_path / "__out__/README.md" and "license: unknown" in again.read_text()


def test_a_run_that_lacks_settings_gets_a_card(tmp_path):
    """A setting that run.json does not have is None, as when the run is resumed."""
    write(tmp_path / "out", "imagefolder")
    path = run_file.path(tmp_path / "out")
    needed = RUN.settings("imagefolder").keys() | {"bundle", "shard_size", "label_scheme"}
    known = json.loads(path.read_text())
    path.write_text(json.dumps({name: known[name] for name in needed if known[name] is not None}))
    card = write_card(tmp_path / "out").read_text()
    assert "## Classes" in card and "--plan" in card and "BUNDLE" not in card


def test_the_table_counts_classes_and_what_is_accepted(runs):
    """`SmallRun` requests happy twice in three, calls the third image sad, and accepts happy."""
    rows = [line for line in (runs / "imagefolder/README.md").read_text().splitlines()]
    table = [line for line in rows if line.startswith("| ")]
    assert table[:5] == [
        "| number | class | requested | labelled | accepted |",
        "| 0 | neutral | 4 | 4 | 0 (0.0%) |",
        "| 1 | happy | 6 | 3 | 3 (100.0%) |",
        "| 2 | sad | 0 | 3 | 0 (0.0%) |",
        "| | all | 10 | 10 | 3 (30.0%) |",
    ]


def test_nothing_is_said_of_judging_where_there_is_no_image():
    """`SmallRun` labels no image fear."""
    settings = RUN.sample_settings("parquet") | {"classes": [*CLASSES, "fear"]}
    records = [RUN.record(index) for index in range(10)]
    assert "| 3 | fear | 0 | 0 | 0 |\n" in text(settings, tally(records))
    unjudged = [{**record, "probabilities": {"happy": 0.0}} for record in records]
    card = text(settings, tally(unjudged))
    assert "| 3 | fear | 0 | 0 | 0 |\n" in card and "| 2 | sad | 0 | 3 | not judged |\n" in card


def test_a_card_says_how_the_images_were_made(runs):
    card = (runs / "imagefolder/README.md").read_text()
    for words in (
        "`tiny` 1.2, licence CC-BY-4.0",
        "`0123abcd`",
        "solver: `unipc`",
        "steps: `8`",
        "seed: `7`",
    ):
        assert words in card


def test_a_card_says_what_a_plan_draws_from():
    """No command line can say it, and the card may be published without run.json."""
    ranges = {"AU6": [0.4, 0.9], "AU12": [0.7, 1]}
    settings = RUN.sample_settings("parquet") | {
        "class_counts": {"happy": 7, "sad": 3},
        "template": "a {age} person, {label}",
        "attributes": {"age": {"child": 1.0, "old": 3.0}},
        "au_distributions": [
            {"labels": ["happy", "fear"], "ranges": ranges},
            {"labels": ["sad"], "units": ["AU1", "AU4"], "rows": ["0.1 0", "0 1", "1 1"]},
        ],
        "size": [64, 48],
    }
    card = text(settings, tally(RUN.record(index) for index in range(10)))
    for line in (
        "- template: `a {age} person, {label}`",
        "- attributes: `{'age': {'child': 1.0, 'old': 3.0}}`",
        "- action units of happy and fear: `AU6 0.4 to 0.9, AU12 0.7 to 1`",
        "- action units of sad: rows of a table, 3 in all, of `AU1 AU4`",
        "- size: `[64, 48]`",
    ):
        assert f"{line}\n" in card
    assert "synfer-rt sample --plan" in card and "- aus:" not in card


@pytest.mark.parametrize(
    ("images", "category"),
    [
        (1, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (284_000, "100K<n<1M"),
        (1_400_000, "1M<n<10M"),
    ],
)
def test_the_size_category_is_that_of_the_hub(images, category):
    assert size_category(images) == category


def test_records_of_an_older_release_are_counted():
    """They do not say where an image comes from, as all were sampled."""
    records = [RUN.record(index) for index in range(3)]
    older = [{n: v for n, v in record.items() if n != "origin"} for record in records]
    assert tally(older) == tally(records)


def test_any_text_stays_a_text_in_the_card(tmp_path):
    """It is neither Markdown nor the end of the block of code."""
    settings = RUN.sample_settings("imagefolder")
    settings["model"]["name"], settings["prompt"] = "my_<b>`model`", "a\n```\n# b | c"
    counts = tally(RUN.record(index) for index in range(10))
    card = text(settings, counts)
    assert card.startswith("# Facial expressions, sampled from my\\_\\<b\\>\\`model\\` 1.2\n")
    assert "- model: `` my_<b>`model` `` 1.2" in card and "prompt: ```` a ``` # b | c ````" in card
    assert "````bash\nsynfer-rt sample" in card and "\n````\n" in card


def test_any_name_is_a_text_in_the_header():
    """Words that YAML reads as something else, what it cannot hold, and classes of one name."""
    settings = {**RUN.settings("parquet"), "classes": ["no", "yes", "-", "-", 'a "b"']}
    head = yaml.safe_load(header(settings, 1, 1, "null\n\x07: # 😀"))
    assert head["pretty_name"] == "null  : # 😀"
    features = {feature["name"]: feature for feature in head["dataset_info"]["features"]}
    names = features["label"]["dtype"]["class_label"]["names"]
    assert names == {"0": "no", "1": "yes", "2": "-", "3": "- 2", "4": 'a "b"'}
    known = datasets.Features._from_yaml_list(head["dataset_info"]["features"])
    assert known["label"].names == list(names.values())


def test_the_seal_is_the_hash_of_what_stands_above_it(runs):
    *above, seal = (runs / "imagefolder/README.md").read_bytes().splitlines(keepends=True)
    assert hashlib.sha256(b"".join(above)).hexdigest().encode() in seal
    assert json.loads((runs / "__imagefolder__/run.json").read_text())["model"]["version"] == "1.2"
