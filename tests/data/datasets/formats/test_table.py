"""Tables of labels: ImageFolder's metadata, CSV, JSON lines, and the images that they name."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from synfer_rt.data.datasets import read_dataset
from synfer_rt.errors import UserError
from tests.small_datasets import labels_of, lock, put, put_text, shades, splits_of, why


class TestTables:
    def test_imagefolder_metadata(self, tmp_path: Path):
        put(tmp_path, train__x=10, train__y=20, train__left_over=30)
        rows = [{"file_name": "x.jpg", "label": "sad"}, {"file_name": "y.jpg", "label": "Fearful"}]
        rows += [{"file_name": "gone.jpg", "label": "sad"}]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "train" / "metadata.jsonl").write_text(text)
        dataset = read_dataset(tmp_path)
        assert dataset.format == "table"
        assert labels_of(dataset) == {"train/x.jpg": "sad", "train/y.jpg": "fear"}
        assert shades(dataset) == [10, 20]
        assert set(why(dataset)) == {"train/metadata.jsonl: gone.jpg", "train/left_over.jpg"}

    def test_nothing_outside_the_dataset_is_read(self, tmp_path: Path):
        put(tmp_path, secret=10, data__x=20)
        text = "".join(
            json.dumps({"file_name": name, "label": "sad"}) + "\n"
            for name in ("../secret.jpg", str(tmp_path / "secret.jpg"), "x.jpg")
        )
        (tmp_path / "data" / "metadata.jsonl").write_text(text)
        dataset = read_dataset(tmp_path / "data")
        assert shades(dataset) == [20] and len(dataset.skipped) == 2

    def test_the_label_of_a_missing_image_is_no_others(self, tmp_path: Path):
        put(tmp_path, test__0001=10, test__0002=20, x=30, y=40)
        rows = ["train/0001.jpg,happy", "train/0002.jpg,fear", "test/0001.jpg,sad"]
        rows += ["test/0002.jpg,anger", "/data/other/x.jpg,fear", "x.jpg,sad"]
        put_text(tmp_path / "labels.csv", "\n".join(("file,label", *rows)))
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {
            "test/0001.jpg": "sad", "test/0002.jpg": "anger", "x.jpg": "sad",
        }  # fmt: skip
        missing = {f"labels.csv: {row.partition(',')[0]}" for row in (*rows[:2], rows[4])}
        assert set(why(dataset)) == missing | {"y.jpg"}
        assert set(why(read_dataset(tmp_path / "labels.csv"))) == missing

    @pytest.mark.parametrize(
        "tables",
        [
            {"l": ("train/1.jpg,happy", "val/1.jpg,sad")},
            {"l": ("/a/train/1.jpg,happy", "/a/val/1.jpg,sad")},
            {"train": ("train/1.jpg,happy",)},
            {"train/l": ("1.jpg,happy",), "val/l": ("1.jpg,sad",)},
            {"train/l": ("images/1.jpg,happy",), "val/l": ("1.jpg,sad",)},
        ],
    )
    def test_the_labels_of_a_part_that_is_missing_are_no_others(
        self, tmp_path: Path, tables: dict[str, tuple[str, ...]]
    ):
        put(tmp_path, val__1=10, val__2=20)
        for name, rows in ({"m": ("val/2.jpg,fear",)} | tables).items():
            put_text(tmp_path / f"{name}.csv", "\n".join(("file,label", *rows)))
        found = labels_of(read_dataset(tmp_path))
        assert "happy" not in found.values() and found["val/2.jpg"] == "fear"
        assert found.get("val/1.jpg") == ("sad" if "sad" in str(tables) else None)

    def test_what_is_missing_in_two_tables_is_named_apart(self, tmp_path: Path):
        put(tmp_path, train__x=10, test__y=20)
        for split in ("train", "test"):
            put_text(tmp_path / split / "metadata.csv", "file_name,label\n1.jpg,sad\ny.jpg,sad\n")
        missing = {f"{split}/metadata.csv: 1.jpg" for split in ("train", "test")}
        assert set(why(read_dataset(tmp_path))) > missing

    def test_a_flat_folder_is_not_labelled_for_two_others(self, tmp_path: Path):
        put(tmp_path, **{"1": 10, "2": 20, "3": 30})
        rows = ["train/1.jpg,happy", "test/1.jpg,sad", "train/2.jpg,fear", "test/3.jpg,anger"]
        put_text(tmp_path / "l.csv", "\n".join(("file,label", *rows)))
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"2.jpg": "fear", "3.jpg": "anger"}
        assert splits_of(dataset) == {"2.jpg": "train", "3.jpg": "test"}

    def test_a_name_alone_means_what_lies_below_its_table(self, tmp_path: Path):
        put(tmp_path, train__1=10, train__deep__2=20, test__3=30)
        put_text(tmp_path / "train" / "l.csv", "file,label\n1.jpg,sad\n2.jpg,fear\n3.jpg,happy\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"train/1.jpg": "sad", "train/deep/2.jpg": "fear"}
        assert set(why(dataset)) == {"train/l.csv: 3.jpg", "test/3.jpg"}

    @pytest.mark.parametrize(
        "name",
        [
            "faces/x.jpg",
            "{root}/faces/x.jpg",
            "/mnt/old/faces/x.jpg",
            "images/x.jpg",
            "../x.jpg",
            "deep/../x.jpg",
            "/old/disk/deep/y.jpg",
            "./x.jpg",
            "y",
        ],
    )
    def test_an_image_is_found_by_what_can_only_mean_it(self, tmp_path: Path, name: str):
        put(tmp_path, faces__x=10, faces__deep__y=20)
        put_text(tmp_path / "faces" / "l.csv", f"file,label\n{name.format(root=tmp_path)},sad\n")
        assert list(labels_of(read_dataset(tmp_path / "faces")).values()) == ["sad"]

    def test_a_folder_may_lie_between_a_table_and_what_it_names(self, tmp_path: Path):
        put(tmp_path, photos__a__0=10, photos__b__0=20)
        put_text(tmp_path / "l.csv", "file,label\na/0.jpg,sad\nb/0.jpg,fear\n")
        found = labels_of(read_dataset(tmp_path))
        assert found == {"photos/a/0.jpg": "sad", "photos/b/0.jpg": "fear"}

    def test_a_name_of_two_images_is_reported_as_such(self, tmp_path: Path):
        put(tmp_path, a__0=10, b__0=20, c__1=30)
        put_text(tmp_path / "l.csv", "file,label\n0.jpg,sad\n1.jpg,fear\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"c/1.jpg": "fear"}
        assert "several images have this name" in why(dataset)["l.csv: 0.jpg"]

    def test_a_table_of_one_split_says_nothing_of_another(self, tmp_path: Path):
        put(tmp_path, train__0=10, train__1=20, test__0=30, test__2=40)
        put_text(tmp_path / "train_labels.csv", "file,label\n0.jpg,sad\n1.jpg,fear\n2.jpg,happy\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"train/0.jpg": "sad", "train/1.jpg": "fear"}
        assert set(splits_of(dataset).values()) == {"train"}
        assert why(dataset) == {
            "train_labels.csv: 2.jpg": "there is no such file",
            "test/0.jpg": "no table lists it",
            "test/2.jpg": "no table lists it",
        }

    def test_lists_of_two_splits_with_the_same_names_share_no_image(self, tmp_path: Path):
        put(tmp_path, images__1=10)
        put_text(tmp_path / "lists" / "train" / "l.csv", "file,label,split\n1.jpg,sad,train\n")
        put_text(tmp_path / "lists" / "test" / "l.csv", "file,label,split\n1.jpg,fear,test\n")
        with pytest.raises(UserError, match="rows of test and train have this name"):
            read_dataset(tmp_path)

    @pytest.mark.parametrize("folder", ["", "a/"])
    def test_one_name_in_two_splits_is_neither(self, tmp_path: Path, folder: str):
        put(tmp_path, images__a__1=10, images__a__2=20)
        put_text(tmp_path / "train.csv", f"file,label\n{folder}1.jpg,sad\n{folder}2.jpg,sad\n")
        put_text(tmp_path / "test.csv", f"file,label\n{folder}1.jpg,fear\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"images/a/2.jpg": "sad"}
        assert {f"{split}.csv: {folder}1.jpg" for split in ("train", "test")} < set(why(dataset))

    def test_the_column_of_images_is_the_one_that_finds_them(self, tmp_path: Path):
        put(tmp_path, a__0=10, b__0=20)
        text = "filename,path,label\n0.jpg,a/0.jpg,sad\n0.jpg,b/0.jpg,fear\n"
        put_text(tmp_path / "l.csv", text)
        assert labels_of(read_dataset(tmp_path)) == {"a/0.jpg": "sad", "b/0.jpg": "fear"}

    def test_capitals_make_no_other_name(self, tmp_path: Path):
        put(tmp_path, images__Face1=10)
        put_text(tmp_path / "l.csv", "file,label\nface1.JPG,sad\n")
        assert labels_of(read_dataset(tmp_path)) == {"images/Face1.jpg": "sad"}

    def test_metadata_of_a_folder_and_of_one_in_it(self, tmp_path: Path):
        put(tmp_path, train__x=10)
        put_text(tmp_path / "metadata.csv", "file_name,label\ntrain/x.jpg,sad\n")
        put_text(tmp_path / "train" / "metadata.csv", "file_name,label\nx.jpg,fear\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"train/x.jpg": "sad"}
        assert why(dataset) == {
            "train/metadata.csv: x.jpg": "it says fear, but an earlier row says sad, which is used"
        }

    def test_names_inside_archives_are_reported_as_such(self, tmp_path: Path):
        put(tmp_path, x=10)
        put_text(tmp_path / "l.csv", "file,label\nx.jpg,sad\n0.tar/1,fear\n")
        assert "it is in an archive" in why(read_dataset(tmp_path))["l.csv: 0.tar/1"]

    @pytest.mark.parametrize("name", ["../aligned/1.jpg", "{root}/aligned/1.jpg", "aligned/1.jpg"])
    def test_a_path_is_exact_where_names_repeat(self, tmp_path: Path, name: str):
        put(tmp_path, aligned__1=10, original__1=20)
        put_text(tmp_path / "labels" / "l.csv", f"file,label\n{name.format(root=tmp_path)},sad\n")
        assert labels_of(read_dataset(tmp_path)) == {"aligned/1.jpg": "sad"}

    @pytest.mark.parametrize(
        ("labels", "splits"),
        [
            (("labels/l", "1.jpg"), ("splits/train", "1.jpg")),
            (("l", "1.jpg"), ("train", "images/1.jpg")),
            (("l", "images/1.jpg"), ("train", "/old/images/1.jpg")),
            (("l", "../1.jpg"), ("train", "../1.jpg")),
        ],
    )
    def test_tables_name_an_image_in_ways_of_their_own(
        self, tmp_path: Path, labels: tuple[str, str], splits: tuple[str, str]
    ):
        put(tmp_path, **{"1" if ".." in labels[1] else "images__1": 10})
        put_text(tmp_path / f"{labels[0]}.csv", f"file,label\n{labels[1]},sad\n")
        put_text(tmp_path / f"{splits[0]}.csv", f"file,width\n{splits[1]},12\n")
        dataset = read_dataset(tmp_path)
        (item,) = dataset.items
        assert (item.label, item.split) == ("sad", "train") and not dataset.skipped

    def test_splits_are_found_beside_tables_of_other_things(self, tmp_path: Path):
        put(tmp_path, happy__1=10, sad__2=20)
        put_text(tmp_path / "train.csv", "file\nhappy/1.jpg\n")
        put_text(tmp_path / "test.csv", "file\nsad/2.jpg\n")
        put_text(tmp_path / "width.csv", "file,width\nhappy/1.jpg,12\nsad/2.jpg,12\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"happy/1.jpg": "happy", "sad/2.jpg": "sad"}
        assert splits_of(dataset) == {"happy/1.jpg": "train", "sad/2.jpg": "test"}
        assert not dataset.skipped

    def test_labels_and_splits_may_be_in_tables_of_their_own(self, tmp_path: Path):
        put(tmp_path, x=10, y=20)
        put_text(tmp_path / "labels.csv", "file,label\nx.jpg,sad\ny.jpg,happy\n")
        put_text(tmp_path / "test.csv", "file\nx.jpg\n")
        put_text(tmp_path / "train.csv", "file\ny.jpg\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"x.jpg": "sad", "y.jpg": "happy"}
        assert splits_of(dataset) == {"x.jpg": "test", "y.jpg": "train"}

    def test_a_split_that_contradicts_another_is_reported(self, tmp_path: Path):
        put(tmp_path, happy__x=10)
        for split in ("test", "train"):
            put_text(tmp_path / f"{split}.csv", "file\nhappy/x.jpg\n")
        dataset = read_dataset(tmp_path)
        assert splits_of(dataset) == {"happy/x.jpg": "test"}
        reason = "it says the split train, but an earlier row says test, which is used"
        assert why(dataset) == {"train.csv: happy/x.jpg": reason}

    def test_a_label_that_contradicts_another_is_reported(self, tmp_path: Path):
        put(tmp_path, x=10, y=20)
        put_text(tmp_path / "a.csv", "file,label\nx.jpg,sad\ny.jpg,Happy\nx.jpg,fear\n")
        put_text(tmp_path / "b.csv", "file,label\ny.jpg,happiness\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"x.jpg": "sad", "y.jpg": "happy"}
        assert why(dataset) == {
            "a.csv: x.jpg": "it says fear, but an earlier row says sad, which is used"
        }

    def test_a_table_without_labels_hides_none(self, tmp_path: Path):
        put(tmp_path, x=10)
        put_text(tmp_path / "a.csv", "file,width\nx.jpg,12\n")
        put_text(tmp_path / "train.csv", "file,label\nx.jpg,sad\n")
        (item,) = read_dataset(tmp_path).items
        assert (item.label, item.split) == ("sad", "train")

    def test_a_table_that_label_wrote_counts_only_when_it_is_given(self, tmp_path: Path):
        put(tmp_path, x=10)
        put_text(tmp_path / "metadata.csv", "file_name,label\nx.jpg,sad\n")
        put_text(tmp_path / "labels.jsonl", '{"file_name": "x.jpg", "label": "fear"}\n')
        put_text(tmp_path / "labels.jsonl.run.json", "{}")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"x.jpg": "sad"}
        assert list(why(dataset)) == ["labels.jsonl"]
        assert "read the table itself" in why(dataset)["labels.jsonl"]
        assert labels_of(read_dataset(tmp_path / "labels.jsonl")) == {"x.jpg": "fear"}

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("l.csv", "file, Label , split\nx.jpg, sad, train\n"),
            ("l.csv", "split, label, file\ntrain, sad, x.jpg\n"),
            ("LIST.CSV", "FILE,LABEL,SPLIT\nx.jpg,sad,train\n"),
            ("L.JSONL", '{"File": "x.jpg", "label ": "sad", "SPLIT": "train"}\n'),
        ],
    )
    def test_columns_are_found_however_they_are_spelt(self, tmp_path: Path, name: str, text: str):
        put(tmp_path, x=10)
        put_text(tmp_path / name, text)
        for path in (tmp_path, tmp_path / name):
            (item,) = read_dataset(path).items
            assert (item.label, item.split) == ("sad", "train")

    def test_a_table_is_read_beside_a_locked_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        put(tmp_path, x=10, locked__y=20)
        put_text(tmp_path / "l.csv", "file,label\nx.jpg,sad\n")
        lock(monkeypatch, tmp_path / "locked")
        assert labels_of(read_dataset(tmp_path / "l.csv")) == {"x.jpg": "sad"}
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"x.jpg": "sad"}
        assert "Permission denied" in why(dataset)["locked"]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("list.csv", "image,label\nx.jpg,3\n"),
            ("list.jsonl", '{"image": "x.jpg", "label": 3}\n'),
        ],
    )
    def test_numbers_need_a_scheme(self, tmp_path: Path, name: str, text: str):
        put(tmp_path, x=10)
        (tmp_path / name).write_text(text)
        dataset = read_dataset(tmp_path)
        assert dataset.format == "table" and labels_of(dataset) == {"x.jpg": None}
        assert "`label_scheme`" in str(dataset.items[0].problem)
        assert labels_of(read_dataset(tmp_path, label_scheme="raf-db")) == {"x.jpg": "disgust"}

    def test_a_table_alone_stands_for_what_it_names(self, tmp_path: Path):
        put(tmp_path, x=10, deep__y=20, other=30)
        (tmp_path / "list.csv").write_text("file,label\nx.jpg,sad\ny.jpg,happy\n")
        before = read_dataset(tmp_path / "list.csv")
        assert labels_of(before) == {"x.jpg": "sad", "deep/y.jpg": "happy"}
        assert before.skipped == ()
        put(tmp_path, out__happy__00000000=40)
        (tmp_path / "labels.jsonl.partial").write_text("{}\n")
        assert read_dataset(tmp_path / "list.csv").digest == before.digest

    def test_a_table_alone_is_read_beside_an_archive(self, tmp_path: Path):
        put(tmp_path, x=10)
        tarfile.open(tmp_path / "0.tar", "w").close()
        (tmp_path / "list.csv").write_text("file,label\nx.jpg,sad\n")
        dataset = read_dataset(tmp_path / "list.csv")
        assert dataset.format == "table" and labels_of(dataset) == {"x.jpg": "sad"}

    def test_a_table_alone_without_images_is_refused(self, tmp_path: Path):
        put(tmp_path, x=10)
        (tmp_path / "list.csv").write_text("a,b\n1,2\n")
        with pytest.raises(UserError, match="no image that can be read in the format table"):
            read_dataset(tmp_path / "list.csv")

    def test_columns_are_those_of_all_rows(self, tmp_path: Path):
        put(tmp_path, x=10, y=20)
        rows = [{"file_name": "x.jpg", "error": "cut"}, {"file_name": "y.jpg", "label": "sad"}]
        (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert labels_of(read_dataset(tmp_path)) == {"x.jpg": None, "y.jpg": "sad"}

    def test_a_table_that_cannot_be_read_is_refused(self, tmp_path: Path):
        put(tmp_path, x=1)
        for text in ("{not json}\n", "[" * 100_000 + "\n"):
            (tmp_path / "metadata.jsonl").write_text(text)
            with pytest.raises(UserError, match="cannot be read as a table"):
                read_dataset(tmp_path)
