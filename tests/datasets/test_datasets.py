"""Each layout as its dataset has it on disk, in small."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synfer_rt.datasets import Dataset, read_dataset, read_datasets, refuse_inside
from synfer_rt.datasets.items import label_of, load
from synfer_rt.errors import UserError
from synfer_rt.writers import open_output, run_file


def picture(shade: int, format: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 12), (shade, shade, shade)).save(file, format)
    return file.getvalue()


def put(root: Path, **files: int) -> None:
    """Images by path (`__` for `/`), each with its own shade of grey."""
    for name, shade in files.items():
        path = root / f"{name.replace('__', '/')}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(shade))


def labels_of(dataset: Dataset) -> dict[str, str | None]:
    return {item.name: item.label for item in dataset.items}


def shades(dataset: Dataset) -> list[int]:
    """The grey of each image, as its bytes decode."""
    found = [load(item, (4, 4)) for item in dataset.items]
    return [round(float(np.asarray(image).mean() * 255)) for image in found]


def why(dataset: Dataset) -> dict[str, str]:
    return {entry.name: entry.reason for entry in dataset.skipped}


def splits_of(dataset: Dataset) -> dict[str, str | None]:
    return {item.name: item.split for item in dataset.items}


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def lock(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """It cannot be listed; permissions alone would not keep out root, as whom containers run."""
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def put_tar(path: Path, **files: bytes) -> None:
    """Members by name, with `__` for the dot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def put_parquet(path: Path, label: object = "sad", **metadata: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": [picture(10)], "label": pa.array([label])})
    pq.write_table(table.replace_schema_metadata(metadata), path)


class TestFolders:
    def test_the_nearest_class_folder_is_the_label(self, tmp_path: Path):
        put(tmp_path, happiness__a=10, Angry__deep__b=20)
        (tmp_path / "happiness" / "Thumbs.db").write_bytes(b"")
        dataset = read_dataset(tmp_path)
        assert dataset.format == "folders"
        assert labels_of(dataset) == {
            "Angry/deep/b.jpg": "anger",
            "happiness/Thumbs.db": "happy",
            "happiness/a.jpg": "happy",
        }

    def test_what_is_in_no_class_folder_is_not_lost(self, tmp_path: Path):
        put(tmp_path, happy__a=10, bored__b=20)
        (tmp_path / "LICENSE").write_text("free")
        dataset = read_dataset(tmp_path)
        assert dataset.items[0].name == "bored/b.jpg" and dataset.items[0].label is None
        assert "no folder of a class" in str(dataset.items[0].problem)
        assert list(why(dataset)) == ["LICENSE"]

    def test_splits_are_told_apart(self, tmp_path: Path):
        put(tmp_path, train__happy__a=10, test__happy__b=20)
        assert {item.split for item in read_dataset(tmp_path).items} == {"train", "test"}
        assert list(labels_of(read_dataset(tmp_path, split="test"))) == ["test/happy/b.jpg"]
        with pytest.raises(UserError, match="it has test, train"):
            read_dataset(tmp_path, split="val")

    def test_numbers_need_a_scheme(self, tmp_path: Path):
        put(tmp_path, **{"4__a": 10})
        assert read_dataset(tmp_path).format == "images"
        assert labels_of(read_dataset(tmp_path, label_scheme="raf-db")) == {"4/a.jpg": "happy"}
        assert labels_of(read_dataset(tmp_path, label_scheme="affectnet-8")) == {"4/a.jpg": "fear"}

    def test_classes_that_are_links_count_and_dead_links_are_listed(self, tmp_path: Path):
        put(tmp_path, elsewhere__a=10, C__sad__b=20)
        (tmp_path / "C" / "happy").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "C" / "sad" / "dead.jpg").symlink_to(tmp_path / "gone.jpg")
        dataset = read_dataset(tmp_path / "C")
        assert labels_of(dataset) == {
            "happy/a.jpg": "happy",
            "sad/b.jpg": "sad",
            "sad/dead.jpg": "sad",
        }
        assert "No such file" in str(load(dataset.items[2], (4, 4)))

    @pytest.mark.parametrize("name", ["dev", "eval", "Evaluation"])
    def test_other_names_of_the_validation_split_are_whole_names(self, tmp_path: Path, name: str):
        put(tmp_path, **{f"{name}__happy__a": 10, f"{name}_patel__happy__a": 20})
        assert list(splits_of(read_dataset(tmp_path)).values()) == ["val", None]

    @pytest.mark.parametrize("name", ["lost+found", "happy"])
    def test_a_folder_that_cannot_be_listed_is_skipped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ):
        put(tmp_path, **{"sad__x": 10, f"{name}__y": 20})
        lock(monkeypatch, tmp_path / name)
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"sad/x.jpg": "sad"}
        assert "Permission denied" in why(dataset)[name]

    def test_a_link_to_a_folder_that_counts_already_is_skipped(self, tmp_path: Path):
        put(tmp_path, sad__x=10)
        (tmp_path / "sad" / "again").symlink_to(tmp_path / "sad")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"sad/x.jpg": "sad"}
        assert "another name" in why(dataset)["sad/again"]


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
        assert why(dataset) == {
            "train.csv: happy/x.jpg": "it says the split train, but test counts"
        }

    def test_a_label_that_contradicts_another_is_reported(self, tmp_path: Path):
        put(tmp_path, x=10, y=20)
        put_text(tmp_path / "a.csv", "file,label\nx.jpg,sad\ny.jpg,Happy\nx.jpg,fear\n")
        put_text(tmp_path / "b.csv", "file,label\ny.jpg,happiness\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"x.jpg": "sad", "y.jpg": "happy"}
        assert why(dataset) == {"a.csv: x.jpg": "it says fear, but sad counts"}

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
        assert "give the table itself" in why(dataset)["labels.jsonl"]
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

    def test_affectnet_csv(self, tmp_path: Path):
        put(tmp_path, Manually_Annotated_Images__12__a=10, Manually_Annotated_Images__12__b=20)
        with (tmp_path / "training.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["subDirectory_filePath", "expression", "valence"])
            writer.writerows([["12/a.jpg", 1, 0.5], ["12/b.jpg", 9, 0]])
        dataset = read_dataset(tmp_path)
        assert dataset.format == "affectnet"
        assert [item.label for item in dataset.items] == ["happy", None]
        assert "9 is outside affectnet-8" in str(dataset.items[1].problem)
        assert {item.split for item in dataset.items} == {"train"}

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
        assert "--label-scheme" in str(dataset.items[0].problem)
        assert labels_of(read_dataset(tmp_path, label_scheme="raf-db")) == {"x.jpg": "disgust"}

    def test_affectnet_annotations(self, tmp_path: Path):
        put(tmp_path, train_set__images__0=10, train_set__images__1=20, val_set__images__0=30)
        for split, number, label in (("train", 0, "7"), ("val", 0, "2")):
            folder = tmp_path / f"{split}_set" / "annotations"
            folder.mkdir()
            np.save(folder / f"{number}_exp.npy", np.array(label))
        dataset = read_dataset(tmp_path)
        assert [(i.label, i.split) for i in dataset.items] == [
            ("contempt", "train"),
            (None, "train"),
            ("sad", "val"),
        ]

    @pytest.mark.parametrize(
        "damage", [b"PK\x03\x04 no zip", b"PK\x05\x06" + bytes(18), b"\x93NUMPY"]
    )
    def test_a_damaged_affectnet_annotation_is_the_images_problem(
        self, tmp_path: Path, damage: bytes
    ):
        put(tmp_path, images__0=10, images__1=20)
        (tmp_path / "annotations").mkdir()
        (tmp_path / "annotations" / "0_exp.npy").write_bytes(damage)
        np.save(tmp_path / "annotations" / "1_exp.npy", np.array("7"))
        bad, good = read_dataset(tmp_path).items
        assert "0_exp.npy cannot be read" in str(bad.problem) and good.label == "contempt"

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
        with pytest.raises(UserError, match="no image that can be used as table"):
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
            with pytest.raises(UserError, match="no table that can be read"):
                read_dataset(tmp_path)


def test_raf_db_counts_from_one_and_prefers_the_aligned_image(tmp_path: Path):
    put(tmp_path, Image__aligned__train_00001_aligned=10, Image__original__train_00001=20)
    put(tmp_path, Image__aligned__test_0001_aligned=30)
    (tmp_path / "EmoLabel").mkdir()
    listed = "train_00001.jpg 5\ntest_0001.jpg 7\ntrain_00002.jpg 1\n"
    (tmp_path / "EmoLabel" / "list_patition_label.txt").write_text(listed)
    dataset = read_dataset(tmp_path)
    assert dataset.format == "raf-db"
    assert [(i.label, i.split) for i in dataset.items] == [("sad", "train"), ("neutral", "test")]
    assert shades(dataset) == [10, 30]
    assert list(why(dataset)) == ["EmoLabel/list_patition_label.txt: train_00002.jpg"]


def test_raf_db_counts_an_image_once_whatever_its_lists_are_called(tmp_path: Path):
    put(tmp_path, train_1=10, train_2=20)
    put_text(tmp_path / "list_patition_label.txt", "\ufefftrain_1.jpg 5\ntrain_2.jpg 4\n")
    put_text(tmp_path / "List_Partition_Label.txt", "train_1.jpg 5\ntrain_2.jpg 7\n")
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == {"train_1.jpg": "sad", "train_2.jpg": "neutral"}
    assert why(dataset) == {
        "list_patition_label.txt: train_2.jpg": "it says happy, but neutral counts"
    }


class TestArchives:
    @pytest.mark.parametrize(
        "shards",
        [("train/0.{}", "test/0.{}"), ("a/train/0.{}", "a/test/0.{}"), ("train-0.{}", "TEST-0.{}")],
    )
    @pytest.mark.parametrize("suffix", ["tar", "TAR", "parquet", "PARQUET"])
    def test_splits_are_those_of_files_or_folders(
        self, tmp_path: Path, shards: tuple[str, str], suffix: str
    ):
        for shard in shards:
            if suffix.lower() == "tar":
                put_tar(tmp_path / shard.format(suffix), **{"0__jpg": picture(1), "0__cls": b"sad"})
            else:
                put_parquet(tmp_path / shard.format(suffix))
        items = read_dataset(tmp_path).items
        assert {item.split for item in items} == {"train", "test"}
        assert [item.label for item in items] == ["sad", "sad"]

    def test_splits_are_those_of_folders_inside_a_tar(self, tmp_path: Path):
        put_tar(tmp_path / "all.tar", **{"train/0__jpg": b"", "test/0__jpg": b""})
        assert [item.split for item in read_dataset(tmp_path).items] == ["train", "test"]

    def test_a_damaged_tar_hides_no_other(self, tmp_path: Path):
        header = tarfile.TarInfo("0.jpg")
        header.pax_headers = {"GNU.sparse.map": "a,b"}
        (tmp_path / "0.tar").write_bytes(header.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
        (tmp_path / "1.tar").symlink_to(tmp_path / "gone.tar")
        put_tar(tmp_path / "2.tar", **{"0__jpg": picture(1)})
        dataset = read_dataset(tmp_path)
        assert list(labels_of(dataset)) == ["2.tar/0"] and set(why(dataset)) == {"0.tar", "1.tar"}

    @pytest.mark.parametrize(
        "text", [b'{"label": 3, "label_scheme": ["a"]}', b"[" * 100_000], ids=["scheme", "nested"]
    )
    def test_odd_json_is_the_samples_problem(self, tmp_path: Path, text: bytes):
        put_tar(tmp_path / "0.tar", **{"0__jpg": picture(1), "0__json": text})
        (item,) = read_dataset(tmp_path).items
        assert item.label is None and item.problem

    def test_damaged_parquet_hides_no_other(self, tmp_path: Path):
        put_parquet(tmp_path / "0.parquet", "\u00e9t\u00e9")
        damaged = (
            (tmp_path / "0.parquet").read_bytes().replace("\u00e9t\u00e9".encode(), b"\xe9t\xe9__")
        )
        (tmp_path / "0.parquet").write_bytes(damaged)
        put_parquet(tmp_path / "1.parquet", 3, huggingface="[" * 100_000)
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"1.parquet/0-0": None} and set(why(dataset)) == {"0.parquet"}

    def test_what_is_no_image_in_parquet_cannot_be_read(self, tmp_path: Path):
        pq.write_table(pa.table({"image": ["\u00e9t\u00e9"]}), tmp_path / "0.parquet")
        damaged = (tmp_path / "0.parquet").read_bytes().replace("\u00e9".encode(), b"\xe9_")
        (tmp_path / "0.parquet").write_bytes(damaged)
        (item,) = read_dataset(tmp_path).items
        assert "the Parquet file is damaged" in str(load(item, (4, 4)))

    @pytest.mark.parametrize("format", ["imagefolder", "webdataset", "parquet"])
    def test_what_our_writers_write_is_read(self, tmp_path: Path, format: str):
        settings = {"format": format, "count": 3, "classes": ["sad", "happy"]}
        writer = open_output(tmp_path / "run", {**settings, "au_vocabulary": None}, resume=False)
        shade = {0: 50, 1: 100, 2: 150}
        records = [
            {
                "index": i,
                "label": ("sad", "happy")[i % 2],
                "label_scheme": "affectnet-8",
                "file_name": f"{i}.png",
                "aus": None,
            }
            for i in shade
        ]
        if format == "imagefolder":
            records = [{k: v for k, v in r.items() if k != "file_name"} for r in records]
        writer.write(records, [picture(s, "PNG") for s in shade.values()])
        writer.finish()
        dataset = read_dataset(tmp_path / "run")
        assert [item.label for item in dataset.items] == ["sad", "happy", "sad"]
        assert shades(dataset) == [50, 100, 150]
        assert dataset.skipped == ()

    def test_a_tar_is_read_in_place_whatever_its_names(self, tmp_path: Path):
        shard = tmp_path / "0.tar"
        with tarfile.open(shard, "w") as tar:
            for name, data in (
                ("../../evil.jpg", picture(40)),
                ("../../evil.cls", b"1"),
                ("b.txt", b"no image"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        before = sorted(tmp_path.rglob("*"))
        dataset = read_dataset(tmp_path, label_scheme="raf-db")
        assert [item.label for item in dataset.items] == ["surprise"]
        assert shades(dataset) == [40]
        assert set(why(dataset)) == {"0.tar/b", "0.tar/link.jpg"}
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_torn_tar_keeps_what_is_whole(self, tmp_path: Path):
        with tarfile.open(tmp_path / "0.tar", "w") as tar:
            for i in range(3):
                info = tarfile.TarInfo(f"{i}.jpg")
                info.size = len(picture(i))
                tar.addfile(info, io.BytesIO(picture(i)))
        data = (tmp_path / "0.tar").read_bytes()
        (tmp_path / "0.tar").write_bytes(data[:2700])  # each takes 512 and 1024 bytes here
        dataset = read_dataset(tmp_path)
        assert 1 <= len(dataset.items) < 3 and dataset.skipped

    def test_parquet_with_class_names_of_hugging_face(self, tmp_path: Path):
        features = {"label": {"names": ["anger", "happy"], "_type": "ClassLabel"}}
        schema = pa.schema(
            [("image", pa.struct([("bytes", pa.binary())])), ("label", pa.int64())],
            {"huggingface": json.dumps({"info": {"features": features}})},
        )
        rows = [{"image": {"bytes": picture(70)}, "label": 1}, {"image": None, "label": 0}]
        pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "test-00000-of-00001.parquet")
        dataset = read_dataset(tmp_path)
        assert [(i.label, i.split) for i in dataset.items] == [("happy", "test"), ("anger", "test")]
        assert shades(Dataset(tmp_path, "parquet", dataset.items[:1])) == [70]
        assert "holds no bytes" in str(load(dataset.items[1], (4, 4)))

    def test_an_unfinished_run_is_refused(self, tmp_path: Path):
        settings = {"format": "webdataset", "count": 3, "classes": ["sad"], "au_vocabulary": None}
        open_output(tmp_path / "run", settings, resume=False).close()
        with pytest.raises(UserError, match="--resume first"):
            read_dataset(tmp_path / "run")

    @pytest.mark.parametrize("format", ["webdataset", "parquet"])
    @pytest.mark.parametrize("made", [4, 6])
    def test_a_run_that_stopped_between_shards_is_refused(
        self, tmp_path: Path, format: str, made: int
    ):
        settings = {"format": format, "count": 6, "classes": ["sad"], "au_vocabulary": None}
        writer = open_output(tmp_path, settings, resume=False, shard_size=2)
        record = {"label": "sad", "label_scheme": "affectnet-8", "aus": None}
        records = [{**record, "index": i, "file_name": f"{i}.png"} for i in range(made)]
        writer.write(records, [picture(i, "PNG") for i in range(made)])
        writer.close()
        shard = next(file for file in tmp_path.iterdir() if file.suffix in (".tar", ".parquet"))
        (tmp_path / "train").mkdir()  # shards may be sorted afterwards
        shard.rename(tmp_path / "train" / shard.name)
        if made == 6:
            assert len(read_dataset(tmp_path).items) == 6
        else:
            lacks = rf"lacks 1 of its run's shards; .* --resume, or remove .*{run_file.FILE}"
            with pytest.raises(UserError, match=lacks):
                read_dataset(tmp_path)

    def test_a_run_json_of_others_says_nothing(self, tmp_path: Path):
        put(tmp_path, happy__x=10)
        for text in (
            '{"format": ["webdataset"], "count": 3, "shard_size": 0}',
            "[",
            '{"count": 1}',
        ):
            (tmp_path / "run.json").write_text(text)
            assert read_dataset(tmp_path).counts() == {"happy": 1}


class TestItems:
    @pytest.mark.parametrize(
        ("value", "scheme", "label"),
        [
            ("Happiness", None, "happy"),
            (3, "affectnet-8", "surprise"),
            ("3", "raf-db", "disgust"),
            (3.0, "affectnet-8", "surprise"),
            (0, "raf-db", None),
            (8, "affectnet-8", None),
            (3, None, None),
            ("all", None, None),
            ("happy,sad", None, None),
            (1, "no such scheme", None),
            (1, ["affectnet-8"], None),
            ("--1", "affectnet-8", None),
            ("\u00b3", "affectnet-8", None),
            ("\u0663", "affectnet-8", None),
            ("9" * 5000, "affectnet-8", None),
        ],
    )
    def test_labels_in_the_usual_ways(self, value: object, scheme: object, label: str | None):
        found, problem = label_of(value, scheme)
        assert found == label and (problem is None) == (label is not None)
        assert len(problem or "") < 100

    def test_a_bad_file_has_the_same_reason_every_time(self, tmp_path: Path):
        (tmp_path / "a.jpg").write_bytes(b"nothing")
        (item,) = read_dataset(tmp_path).items
        assert "no image" in str(load(item, (4, 4)))
        assert load(item, (4, 4)) == load(item, (4, 4)) and "0x" not in str(load(item, (4, 4)))


class TestNamesThatAreNotUtf8:
    odd = os.fsdecode(b"caf\xe9")

    def assert_written(self, dataset: Dataset, name: str) -> None:
        """Its name can go into any file, and the image is still read."""
        (item,) = dataset.items
        assert item.name == name and item.name.encode()
        assert shades(dataset) == [10]

    def test_of_files(self, tmp_path: Path):
        put(tmp_path, **{f"{self.odd}__x": 10})
        self.assert_written(read_dataset(tmp_path), "caf\\udce9/x.jpg")
        lines = '{"file_name": "\\udce9.jpg"}\n{"file_name": "x.jpg"}\n'
        (tmp_path / self.odd / "metadata.jsonl").write_text(lines)
        (skipped,) = read_dataset(tmp_path / self.odd).skipped
        assert skipped.name == "metadata.jsonl: \\udce9.jpg"

    def test_of_the_folder_of_one_among_several(self, tmp_path: Path):
        put(tmp_path, **{f"{self.odd}__x": 10, "b__y": 20})
        dataset = read_datasets([tmp_path / self.odd, tmp_path / "b"], "auto", None, None)
        assert dataset.items[0].name == f"{tmp_path.as_posix()}/caf\\udce9/x.jpg"

    def test_of_tars_and_their_members(self, tmp_path: Path):
        member = tarfile.TarInfo(f"{self.odd}.jpg")
        member.size = len(picture(10))
        with tarfile.open(tmp_path / f"{self.odd}.tar", "w") as tar:
            tar.addfile(member, io.BytesIO(picture(10)))
        self.assert_written(read_dataset(tmp_path), "caf\\udce9.tar/caf\\udce9")

    def test_of_parquet_files(self, tmp_path: Path):
        table = pa.table({"image": [picture(10)]})
        pq.write_table(table, tmp_path / "a.parquet")
        (tmp_path / "a.parquet").rename(tmp_path / f"{self.odd}.parquet")
        self.assert_written(read_dataset(tmp_path), "caf\\udce9.parquet/0-0")


class TestReadDatasets:
    def test_several_sources_keep_their_whole_names(self, tmp_path: Path):
        put(tmp_path, a__x=10, b__x=20)
        dataset = read_datasets([tmp_path / "a" / "x.jpg", tmp_path / "b"], "auto", None, None)
        assert [Path(item.name) for item in dataset.items] == [
            tmp_path / "a" / "x.jpg",
            tmp_path / "b" / "x.jpg",
        ]
        assert shades(dataset) == [10, 20]

    @pytest.mark.parametrize("format", ["parquet", "raf-db"])
    def test_a_layout_that_is_not_there_is_refused(self, tmp_path: Path, format: str):
        put(tmp_path, x=10)
        with pytest.raises(UserError, match="no image that can be used"):
            read_dataset(tmp_path, format)

    def test_the_digest_tells_another_dataset(self, tmp_path: Path):
        put(tmp_path, happy__x=10)
        before = read_dataset(tmp_path).digest
        assert read_dataset(tmp_path).digest == before
        put(tmp_path, sad__y=10)
        assert read_dataset(tmp_path).digest != before

    @pytest.mark.parametrize("kind", ["folders", "webdataset", "parquet"])
    def test_the_digest_tells_changed_files(self, tmp_path: Path, kind: str):
        name, make = {
            "folders": ("happy/0.jpg", lambda file: file.write_bytes(picture(1))),
            "webdataset": ("0.tar", lambda file: put_tar(file, **{"0__jpg": picture(1)})),
            "parquet": ("0.parquet", put_parquet),
        }[kind]
        (tmp_path / "happy").mkdir()
        make(tmp_path / name)
        dataset = read_dataset(tmp_path, kind)
        before, then = dataset.digest, (tmp_path / name).stat().st_mtime_ns
        os.utime(tmp_path / name, ns=(then, then + 1_000_000))
        assert dataset.digest != before
        os.utime(tmp_path / name, ns=(then, then))
        assert dataset.digest == before
        with (tmp_path / name).open("ab") as file:
            file.write(b"\0")
        os.utime(tmp_path / name, ns=(then, then))
        assert dataset.digest != before

    def test_an_output_inside_the_input_is_refused(self, tmp_path: Path):
        put(tmp_path, data__x=1)
        with pytest.raises(UserError, match="inside the input"):
            refuse_inside(tmp_path / "data" / "out", [tmp_path / "data"])
        refuse_inside(tmp_path / "out", [tmp_path / "data"])

    def test_an_output_in_what_the_input_links_to_is_refused(self, tmp_path: Path):
        put(tmp_path, data__happy__x=1, elsewhere__sad__y=2)
        (tmp_path / "data" / "sad").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "data" / "around").symlink_to(tmp_path)
        with pytest.raises(UserError, match="or a folder that it links to; choose another --out"):
            refuse_inside(tmp_path / "elsewhere" / "out", [tmp_path / "data"])
        refuse_inside(tmp_path / "out", [tmp_path / "data"])

    def test_a_path_that_cannot_be_looked_at_is_refused(self, tmp_path: Path):
        put(tmp_path, data__x=1)
        with pytest.raises(UserError, match=r"cannot be looked at .*shorter name"):
            read_dataset(tmp_path / ("a" * 300))
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        with pytest.raises(UserError, match=r"cannot be looked at .*mend its links"):
            read_dataset(tmp_path / "loop")
        with pytest.raises(UserError, match="cannot be looked at"):
            refuse_inside(tmp_path / "out", [tmp_path / "loop"])
