"""Each layout as its dataset has it on disk, in small."""

from __future__ import annotations

import csv
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
from synfer_rt.writers import open_output


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
        assert set(why(dataset)) == {"gone.jpg", "train/left_over.jpg"}

    def test_nothing_outside_the_dataset_is_read(self, tmp_path: Path):
        put(tmp_path, secret=10, data__x=20)
        text = "".join(
            json.dumps({"file_name": name, "label": "sad"}) + "\n"
            for name in ("../secret.jpg", str(tmp_path / "secret.jpg"), "x.jpg")
        )
        (tmp_path / "data" / "metadata.jsonl").write_text(text)
        dataset = read_dataset(tmp_path / "data")
        assert shades(dataset) == [20] and len(dataset.skipped) == 2

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
        (tmp_path / "metadata.jsonl").write_text("{not json}\n")
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
    assert list(why(dataset)) == ["train_00002.jpg"]


class TestArchives:
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
        ],
    )
    def test_labels_in_the_usual_ways(self, value: object, scheme: str | None, label: str | None):
        found, problem = label_of(value, scheme)
        assert found == label and (problem is None) == (label is not None)

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
        assert skipped.name == "\\udce9.jpg"

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

    def test_an_output_inside_the_input_is_refused(self, tmp_path: Path):
        put(tmp_path, data__x=1)
        with pytest.raises(UserError, match="inside the input"):
            refuse_inside(tmp_path / "data" / "out", [tmp_path / "data"])
        refuse_inside(tmp_path / "out", [tmp_path / "data"])
