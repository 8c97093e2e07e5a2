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


class TestMembersOfTars:
    def test_class_folders_inside_a_tar_are_labels(self, tmp_path: Path):
        files = {"happy/0001__jpg": 10, "./sad/0001__jpg": 20, "train/Fear/a.b__jpg": 30}
        files |= {"train/Fear/a.c__jpg": 40, "other/1__jpg": 50}
        put_tar(tmp_path / "0.tar", **{name: picture(shade) for name, shade in files.items()})
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {
            "0.tar/happy/0001": "happy",
            "0.tar/sad/0001": "sad",
            "0.tar/train/Fear/a.b.jpg": "fear",
            "0.tar/train/Fear/a.c.jpg": "fear",
            "0.tar/other/1": None,
        }
        assert shades(dataset) == [10, 20, 30, 40, 50] and not dataset.skipped
        assert "it is in no folder of a class" in str(dataset.items[-1].problem)

    def test_a_misspelt_class_folder_inside_a_tar_is_refused(self, tmp_path: Path):
        put_tar(tmp_path / "0.tar", **{"happy/0__jpg": picture(1), "angerr/0__jpg": picture(2)})
        with pytest.raises(UserError, match="the nearest is anger"):
            read_dataset(tmp_path)

    def test_what_a_sample_says_goes_before_its_folder(self, tmp_path: Path):
        files = {"happy/0__jpg": picture(1), "happy/0__cls": b"sad", "happy/1__jpg": picture(2)}
        put_tar(tmp_path / "0.tar", **files, **{"happy/1__cls": b"3"})
        assert list(labels_of(read_dataset(tmp_path)).values()) == ["sad", "happy"]
        found = labels_of(read_dataset(tmp_path, label_scheme="affectnet-8"))
        assert list(found.values()) == ["sad", "surprise"]

    def test_no_member_vanishes(self, tmp_path: Path):
        members = [("0.jpg", 10), ("0.jpg", 20), ("0.png", 30), ("0.cls", b"sad"), ("1.txt", b"")]
        with tarfile.open(tmp_path / "0.tar", "w") as tar:
            for name, content in members:
                data = picture(content) if isinstance(content, int) else content
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"0.tar/0": "sad"} and shades(dataset) == [10]
        assert why(dataset) == {
            "0.tar/0.jpg": "another file has its name there already, and the first counts",
            "0.tar/0.png": "0.jpg is the image of its sample, and it is not used",
            "0.tar/1": "it has no image",
        }

    @pytest.mark.parametrize("key", ["label", "emotion", "Expression", "class_name"])
    def test_json_has_its_label_under_the_keys_in_use(self, tmp_path: Path, key: str):
        text = json.dumps({key: "fear", "split": "val"}).encode()
        put_tar(tmp_path / "0.tar", **{"0__jpg": picture(1), "0__json": text})
        (item,) = read_dataset(tmp_path).items
        assert (item.label, item.split) == ("fear", "val")

    def test_json_without_a_known_label_is_said(self, tmp_path: Path):
        put_tar(tmp_path / "0.tar", **{"0__jpg": picture(1), "0__json": b'{"code": 5, "id": 3}'})
        assert "code, id is known to hold labels" in why(read_dataset(tmp_path))["0.tar"]

    def test_a_table_in_a_tar_is_named(self, tmp_path: Path):
        put_tar(tmp_path / "0.tar", **{"0__jpg": picture(1), "labels__csv": b"file,label\n"})
        assert "unpack the archive" in why(read_dataset(tmp_path))["0.tar/labels"]

    def test_images_beside_a_tar_are_reported(self, tmp_path: Path):
        put_tar(tmp_path / "0.tar", **{"0__jpg": picture(1)})
        put(tmp_path, happy__x=10)
        assert "beside archives" in why(read_dataset(tmp_path))["happy/x.jpg"]


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
            with pytest.raises(UserError, match=f"compressed; decompress it first, by {command}"):
                read_dataset(path)

    def test_zstandard(self, tmp_path: Path):
        (tmp_path / "0.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd")
        with pytest.raises(UserError, match=r"by zstd -d 0\.tar\.zst"):
            read_dataset(tmp_path)

    def test_an_archive_beside_images_is_named(self, tmp_path: Path):
        put(tmp_path, happy__a=10)
        for name in ("faces.zip", "faces.tar.gz", "labels.csv.gz"):
            (tmp_path / name).write_bytes(b"?")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"happy/a.jpg": "happy"}
        assert why(dataset) == {
            "faces.tar.gz": "it is an archive beside images; give it by itself",
            "faces.zip": "it is an archive beside images; give it by itself",
            "labels.csv.gz": "it is compressed; decompress it first",
        }


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
        assert "damaged there" in str(load(item, (4, 4)))
        (tmp_path / "0.zip").write_bytes(content[:100])
        with pytest.raises(UserError, match="no whole zip"):
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


class TestColumnsOfParquet:
    NAMES = ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")

    def put_rows(self, path: Path, table: pa.Table, **features: object) -> None:
        text = json.dumps({"info": {"features": features}})
        pq.write_table(table.replace_schema_metadata({"huggingface": text}), path)

    @pytest.mark.parametrize("image", ["image", "img", "image.bytes", "img_bytes", "pixel_values"])
    @pytest.mark.parametrize("label", ["label", "labels", "emotion", "expression"])
    def test_images_and_classes_under_the_names_in_use(
        self, tmp_path: Path, image: str, label: str
    ):
        rows = {image: [picture(10 * i) for i in range(7)], label: list(range(7))}
        classes = {"names": list(self.NAMES), "_type": "ClassLabel"}
        self.put_rows(tmp_path / "test-0.parquet", pa.table(rows), **{label: classes})
        dataset = read_dataset(tmp_path)
        assert tuple(labels_of(dataset).values()) == self.NAMES
        assert shades(dataset) == [10 * i for i in range(7)]

    def test_the_image_is_the_one_that_the_schema_says(self, tmp_path: Path):
        rows = {"image": [picture(1)], "face": [picture(2)], "label": ["sad"]}
        self.put_rows(tmp_path / "0.parquet", pa.table(rows), face={"_type": "Image"})
        assert shades(read_dataset(tmp_path)) == [2]

    def test_a_negative_class_is_a_missing_label(self, tmp_path: Path):
        rows = {"image": [picture(1), picture(2)], "label": [3, -1]}
        classes = {"names": list(self.NAMES), "_type": "ClassLabel"}
        self.put_rows(tmp_path / "0.parquet", pa.table(rows), label=classes)
        labelled, missing = read_dataset(tmp_path, label_scheme="raf-db").items
        assert labelled.label == "happy"
        assert (missing.label, missing.written, missing.problem) == (None, None, None)

    def test_lists_of_one_class(self, tmp_path: Path):
        rows = {"image": [picture(1), picture(2)], "labels": [[3], [3, 5]]}
        classes = {"feature": {"names": list(self.NAMES), "_type": "ClassLabel"}, "_type": "List"}
        self.put_rows(tmp_path / "0.parquet", pa.table(rows), labels=classes)
        assert [item.label for item in read_dataset(tmp_path).items] == ["happy", None]

    def test_words_categories_and_one_hot_columns(self, tmp_path: Path):
        words = pa.array(["sad", "fear"]).dictionary_encode()
        pictures = [picture(1), picture(2)]
        pq.write_table(pa.table({"img": pictures, "emo": words}), tmp_path / "0.parquet")
        columns = {"img": pictures, "sad": [1, 0], "fear": [0, 1], "happy": [0, 0]}
        pq.write_table(pa.table(columns), tmp_path / "1.parquet")
        assert [item.label for item in read_dataset(tmp_path).items] == ["sad", "fear"] * 2

    def test_paths_in_parquet_name_images(self, tmp_path: Path):
        put(tmp_path, faces__a=10)
        table = pa.table({"image": ["faces/a.jpg"], "emotion": ["fear"]})
        pq.write_table(table, tmp_path / "train.parquet")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"faces/a.jpg": "fear"} and dataset.items[0].split == "train"

    @pytest.mark.parametrize(
        ("columns", "found"),
        [
            ({"a": [b"1"], "b": [b"2"], "label": ["sad"]}, r"a \(binary\), b \(binary\), label"),
            ({"image": [[1, 2]], "label": ["sad"]}, r"image \(list<element: int64>\), label"),
        ],
    )
    def test_what_holds_no_image_files_is_named_with_its_columns(
        self, tmp_path: Path, columns: dict[str, list[object]], found: str
    ):
        pq.write_table(pa.table(columns), tmp_path / "0.parquet")
        with pytest.raises(UserError, match=rf"none of its columns holds image files: {found}"):
            read_dataset(tmp_path)
        (tmp_path / "0.parquet").rename(tmp_path / "metadata.parquet")
        with pytest.raises(UserError, match="none of its columns holds image files"):
            read_dataset(tmp_path)
