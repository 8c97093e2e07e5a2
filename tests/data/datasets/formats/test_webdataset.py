"""Tar shards and Parquet."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synfer_rt.data.datasets import Dataset, read_dataset
from synfer_rt.data.datasets.items import load
from synfer_rt.data.writers import open_output, run_file
from synfer_rt.errors import UserError
from tests.small_datasets import (
    labels_of,
    picture,
    put,
    put_parquet,
    put_tar,
    put_text,
    shades,
    why,
)

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
        assert "does not contain it, only its path 0.png" in str(load(item, (4, 4)))

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
        assert "does not contain it" in str(load(dataset.items[1], (4, 4)))

    @pytest.mark.parametrize("suffix", ["tar", "zip"])
    def test_hidden_files_are_passed_over(self, tmp_path: Path, suffix: str):
        names = ("./sad/0.jpg", "./sad/._0.jpg", "./.trash/sad/1.jpg", "__MACOSX/sad/0.jpg")
        if suffix == "tar":
            put_tar(tmp_path / "0.tar", **{name: picture(1) for name in names})
        else:
            with zipfile.ZipFile(tmp_path / "0.zip", "w") as archive:
                for name in names:
                    archive.writestr(name, picture(1))
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {f"0.{suffix}/sad/0": "sad"} and dataset.skipped == ()

    def test_files_beside_images_that_are_not_read_are_counted(self, tmp_path: Path):
        texts = {"0__txt": b"sad", "1__txt": b"happy", "1__cls": b"fear", "1__depth__npy": b""}
        put_tar(tmp_path / "0.tar", **{"0__jpg": picture(1), "1__jpg": picture(2)}, **texts)
        dataset = read_dataset(tmp_path)
        assert [item.label for item in dataset.items] == [None, "fear"]
        assert {name: reason.split()[0] for name, reason in why(dataset).items()} == {
            "0.tar/*.txt": "2",
            "0.tar/*.npy": "1",
        }

    def test_an_unfinished_run_is_refused(self, tmp_path: Path):
        settings = {"format": "webdataset", "count": 3, "classes": ["sad"], "au_vocabulary": None}
        open_output(tmp_path / "run", settings, resume=False).close()
        with pytest.raises(UserError, match="again with `--resume` first"):
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
            lacks = rf"lacks 1 of the shards of its run; .* `--resume`, or remove .*{run_file.FILE}"
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


class TestCompressed:
    @pytest.mark.parametrize(
        ("name", "mode", "command"),
        [
            ("0.tar.gz", "w:gz", "gzip -d 0.tar.gz"),
            ("0.tgz", "w:gz", "gzip -d 0.tgz"),
            ("0.tar.xz", "w:xz", "xz -d 0.tar.xz"),
            ("0.tar.bz2", "w:bz2", "bzip2 -d 0.tar.bz2"),
            ("0.tar", "w:gz", "gzip -d 0.tar"),
        ],
    )
    def test_a_compressed_tar_is_refused_with_its_remedy(
        self, tmp_path: Path, name: str, mode: str, command: str
    ):
        tarfile.open(tmp_path / name, mode).close()  # type: ignore[call-overload]
        for path in (tmp_path, tmp_path / name):
            with pytest.raises(UserError, match=f"compressed; decompress it first with {command}"):
                read_dataset(path)

    def test_zstandard(self, tmp_path: Path):
        (tmp_path / "0.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd")
        with pytest.raises(UserError, match=r"with zstd -d 0\.tar\.zst"):
            read_dataset(tmp_path)

    def test_an_archive_beside_images_is_named(self, tmp_path: Path):
        put(tmp_path, happy__a=10)
        for name in ("faces.zip", "faces.tar.gz", "labels.csv.gz"):
            (tmp_path / name).write_bytes(b"?")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"happy/a.jpg": "happy"}
        assert why(dataset) == {
            "faces.tar.gz": "it is an archive beside image files; read it as a dataset of its own",
            "faces.zip": "it is an archive beside image files; read it as a dataset of its own",
            "labels.csv.gz": "it is compressed; decompress it first",
        }


class TestBesideImages:
    @pytest.mark.parametrize("tabled", [True, False])
    def test_a_tar_beside_a_tree_of_images_does_not_hide_it(self, tmp_path: Path, tabled: bool):
        put(tmp_path, happy__a=10, sad__b=20)
        if tabled:
            put_text(tmp_path / "labels.csv", "file,label\na.jpg,happy\nb.jpg,sad\n")
        put_tar(tmp_path / "code.tar", **{"a__py": b"print()"})
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"happy/a.jpg": "happy", "sad/b.jpg": "sad"}
        assert why(dataset) == {
            "code.tar": "it is an archive beside image files; read it as a dataset of its own"
        }

    def test_a_picture_beside_shards_hides_none(self, tmp_path: Path):
        put(tmp_path, preview=10)
        put_tar(tmp_path / "0.tar", **{"0__jpg": picture(1), "0__cls": b"sad"})
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"0.tar/0": "sad"} and set(why(dataset)) == {"preview.jpg"}


class TestZips:
    def put_zip(self, path: Path, **files: bytes) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name.replace("__jpg", ".jpg").replace("__png", ".png"), content)

    def test_class_folders_in_a_zip(self, tmp_path: Path):
        files = {"fer/train/happy/0__jpg": 10, "fer/test/sad/1__jpg": 20, "fer/test/sad/2__png": 30}
        pictures = {name: picture(shade) for name, shade in files.items()}
        self.put_zip(tmp_path / "fer.zip", **pictures, **{"__MACOSX/fer/x__jpg": b""})
        for path in (tmp_path, tmp_path / "fer.zip"):
            dataset = read_dataset(path)
            assert list(labels_of(dataset).values()) == ["happy", "sad", "sad"]
            assert [item.split for item in dataset.items] == ["train", "test", "test"]
            assert shades(dataset) == [10, 20, 30]

    def test_names_in_a_zip_are_never_paths(self, tmp_path: Path):
        self.put_zip(tmp_path / "0.zip", **{"../../happy/evil__jpg": picture(10)})
        before = sorted(tmp_path.rglob("*"))
        assert shades(read_dataset(tmp_path)) == [10]
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_damaged_zip_is_reported(self, tmp_path: Path):
        self.put_zip(tmp_path / "0.zip", **{"happy/0__jpg": picture(10) + bytes(500)})
        content = bytearray((tmp_path / "0.zip").read_bytes())
        content[200] ^= 255
        (tmp_path / "0.zip").write_bytes(content)
        (item,) = read_dataset(tmp_path).items
        assert "zip file is damaged" in str(load(item, (4, 4)))
        (tmp_path / "0.zip").write_bytes(content[:100])
        with pytest.raises(UserError, match="not a whole zip"):
            read_dataset(tmp_path)

    def test_a_file_that_says_it_is_huge_is_not_read(self, tmp_path: Path):
        self.put_zip(tmp_path / "0.zip", **{"0__jpg": picture(1), "1__jpg": picture(2)})
        content = (tmp_path / "0.zip").read_bytes()
        size = len(picture(2)).to_bytes(4, "little")
        at = content.rindex(size, 0, content.rindex(b"1.jpg"))  # the uncompressed size
        huge = (2**31).to_bytes(4, "little")
        (tmp_path / "0.zip").write_bytes(content[:at] + huge + content[at + 4 :])
        dataset = read_dataset(tmp_path)
        assert list(labels_of(dataset)) == ["0.zip/0"] and "bytes" in why(dataset)["0.zip/1.jpg"]
