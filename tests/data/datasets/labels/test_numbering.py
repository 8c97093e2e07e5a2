"""Numbers as labels: which scheme they can be of is decided on the whole dataset."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from synfer_rt.data.datasets import Dataset, read_dataset
from synfer_rt.data.datasets.labels.label import label_of
from synfer_rt.data.writers import open_output
from synfer_rt.errors import UserError
from synfer_rt.vocabulary import label_schemes
from tests.small_datasets import picture, put, put_text

RAF = ["surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"]


def table_of(root: Path, numbers: Iterable[int], scheme: str | None, split: str | None = None):
    """A dataset of one table with these labels, read."""
    rows = [f"{i}.jpg,{number},{'train' if i else 'test'}" for i, number in enumerate(numbers)]
    put(root, **{str(i): i for i in range(len(rows))})
    put_text(root / "list.csv", "\n".join(["file,label,split", *rows]))
    return read_dataset(root, label_scheme=scheme, split=split)


def names(dataset: Dataset) -> list[str | None]:
    return [item.label for item in dataset.items]


def put_raf(root: Path, numbers: Iterable[int], width: int) -> None:
    """A list of RAF-DB's and its aligned images."""
    rows = {f"train_{i:0{width}d}": number for i, number in enumerate(numbers, 1)}
    put(root, **{f"Image__aligned__{name}_aligned": 10 for name in rows})
    lines = [f"{name}.jpg {number}" for name, number in rows.items()]
    put_text(root / "EmoLabel" / "list_patition_label.txt", "\n".join(lines))


class TestRafDb:
    def test_the_compound_list_has_no_basic_labels(self, tmp_path: Path):
        put_raf(tmp_path / "C", range(1, 12), 4)
        dataset = read_dataset(tmp_path / "C")
        assert dataset.format == "raf-db" and names(dataset) == [None] * 11
        assert all(item.not_understood for item in dataset.items)
        assert "numbers up to 11" in str(dataset.items[0].problem)

    def test_beside_it_the_basic_list_keeps_its_labels(self, tmp_path: Path):
        put_raf(tmp_path / "basic", range(1, 8), 5)
        put_raf(tmp_path / "compound", range(1, 12), 4)
        assert names(read_dataset(tmp_path)) == [*RAF, *[None] * 11]

    def test_a_part_of_the_compound_list_is_known_by_its_folder(self, tmp_path: Path):
        put_raf(tmp_path / "compound", range(1, 6), 4)
        assert names(read_dataset(tmp_path / "compound")) == [None] * 5

    def test_in_another_form_it_is_known_too(self, tmp_path: Path):
        assert names(table_of(tmp_path, range(1, 12), "raf-db")) == [None] * 11
        assert names(read_dataset(tmp_path, label_scheme="raf-db", split="test")) == [None]

    def test_one_zero_refuses_what_counts_from_one(self, tmp_path: Path):
        with pytest.raises(UserError, match='label_scheme="raf-db-from-0"'):
            table_of(tmp_path, [3, 0, 6], "raf-db", "test")
        assert names(read_dataset(tmp_path, label_scheme="raf-db-from-0")) == [
            "happy",
            "surprise",
            "neutral",
        ]

    def test_a_folder_0_refuses_it_as_well(self, tmp_path: Path):
        put(tmp_path, **{f"train__{i}__a": i for i in range(7)})
        with pytest.raises(UserError, match="raf-db counts from 1"):
            read_dataset(tmp_path, label_scheme="raf-db")
        assert names(read_dataset(tmp_path, label_scheme="raf-db-from-0")) == RAF

    def test_the_class_numbers_of_our_own_shards_are_read_back(self, tmp_path: Path):
        settings = {
            "format": "webdataset",
            "count": 7,
            "classes": list(label_schemes.scheme("raf-db")),
        }
        out = open_output(tmp_path / "own", {**settings, "au_vocabulary": None}, resume=False)
        said = {"label_scheme": "raf-db", "aus": None}
        records = [{"index": i, "label": name, **said} for i, name in enumerate(RAF)]
        out.write(records, [picture(i, "PNG") for i in range(7)])
        out.finish()
        _strip_json(next((tmp_path / "own").glob("*.tar")), tmp_path / "train.tar")
        found = read_dataset(tmp_path / "train.tar", label_scheme="raf-db-from-0")
        assert names(found) == RAF
        with pytest.raises(UserError, match="raf-db-from-0"):
            read_dataset(tmp_path / "train.tar", label_scheme="raf-db")


def _strip_json(shard: Path, out: Path) -> None:
    """The images and class numbers of a shard, as training code takes them."""
    with tarfile.open(shard) as whole, tarfile.open(out, "w") as part:
        for member in whole:
            if not member.name.endswith(".json"):
                part.addfile(member, whole.extractfile(member))


class TestWhereNumbersBegin:
    def test_those_from_1_are_not_of_a_scheme_from_0(self, tmp_path: Path):
        with pytest.raises(UserError, match="as if its labels counted from 1"):
            table_of(tmp_path, [1, 2, 7], "fer2013-csv")
        assert names(read_dataset(tmp_path, label_scheme="dfew")) == ["happy", "sad", "fear"]

    def test_a_list_of_names_with_a_place_for_0_reads_them(self, tmp_path: Path):
        order = "-,anger,disgust,fear"
        assert names(table_of(tmp_path, [1, 2, 3], order)) == ["anger", "disgust", "fear"]

    def test_affectnets_own_number_8_is_no_ninth_class(self, tmp_path: Path):
        assert names(table_of(tmp_path, [6, 8, 9], "affectnet-8")) == ["anger", None, None]

    def test_a_whole_row_from_1_to_8_is_not_affectnets(self, tmp_path: Path):
        with pytest.raises(UserError, match="the label 8 and no label 0"):
            table_of(tmp_path, range(1, 9), "affectnet-8")


class TestOneLabel:
    @pytest.mark.parametrize(
        ("value", "scheme", "label"),
        [
            (" 3 ", "affectnet-8", "surprise"),
            ("   3.0000000e+00", "ck-plus", "disgust"),
            ("2", "happy,sad,neutral", "neutral"),
            ("HA", None, "happy"),
            ("suprise", None, "surprise"),
        ],
    )
    def test_is_read_in_the_ways_of_published_sets(self, value: str, scheme: str, label: str):
        assert label_of(value, scheme).name == label

    @pytest.mark.parametrize(
        ("value", "scheme", "why"),
        [
            (8, "affectnet-8", "its label 8 is not a class of affectnet-8: it means none"),
            (7, "affectnet-7", "it means contempt"),
            (9, "ferplus", "it means no face"),
            (-1, "affectnet-8", "its label -1 is not a class of affectnet-8"),
            ("3.5", "affectnet-8", "is not a whole number"),
            ("1", "neutral,-,happy", "it means nothing"),
            (True, "affectnet-8", "'True' is not a known expression"),
            ("hapines", None, "the nearest is happy"),
        ],
    )
    def test_says_why_it_is_not_understood(self, value: object, scheme: str, why: str):
        label = label_of(value, scheme)
        assert label.name is None and why in str(label.problem)
        assert label.written == str(value)

    @pytest.mark.parametrize("missing", [None, "", "  ", float("nan"), "NaN"])
    def test_a_missing_value_is_no_label(self, missing: object):
        assert label_of(missing, "affectnet-8") == (None, None, None, None)


class TestListsOfNames:
    def test_are_schemes(self):
        assert label_schemes.scheme("Angry, suprise,-,happiness") == (
            "anger",
            "surprise",
            "-",
            "happy",
        )

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("happy,supprise", "the nearest is surprise"),
            ("happy,sad,joy", "contains happy twice"),
            ("happy,-,none", "fewer than two"),
        ],
    )
    def test_are_refused_where_they_are_not_clear(self, text: str, why: str):
        with pytest.raises(UserError, match=why):
            label_schemes.scheme(text)
