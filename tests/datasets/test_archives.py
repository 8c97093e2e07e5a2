"""Tar shards and Parquet."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synfer_rt.datasets import Dataset, read_dataset
from synfer_rt.datasets.items import load
from synfer_rt.errors import UserError
from synfer_rt.writers import open_output, run_file
from tests.small_datasets import labels_of, picture, put, put_parquet, put_tar, shades, why

PICTURES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""As Hugging Face's `datasets` keeps an image."""


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
        table = pa.table({"image": pa.array([{"path": "0.png", "bytes": None}], PICTURES)})
        pq.write_table(table, tmp_path / "0.parquet")
        (item,) = read_dataset(tmp_path).items
        assert "holds no bytes of it, only the path 0.png" in str(load(item, (4, 4)))

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
