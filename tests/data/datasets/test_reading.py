"""What all formats share: labels, names, digests, several inputs, refusals."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synfer_rt.data.datasets import Dataset, read_dataset, read_datasets, refuse_inside
from synfer_rt.data.datasets.items import load
from synfer_rt.data.datasets.labels.label import label_of
from synfer_rt.errors import UserError
from tests.small_datasets import picture, put, put_parquet, put_tar, shades


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
        found = label_of(value, scheme)
        assert found.name == label and (found.problem is None) == (label is not None)
        assert len(found.problem or "") < 100

    def test_a_bad_file_has_the_same_reason_every_time(self, tmp_path: Path):
        (tmp_path / "a.jpg").write_bytes(b"nothing")
        (item,) = read_dataset(tmp_path).items
        assert "its format is unknown" in str(load(item, (4, 4)))
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
    def test_a_format_that_is_not_there_is_refused(self, tmp_path: Path, format: str):
        put(tmp_path, x=10)
        refused = f"no image that can be read in the format {format}.* choose another"
        with pytest.raises(UserError, match=refused):
            read_dataset(tmp_path, format)

    def test_the_digest_tells_another_dataset(self, tmp_path: Path):
        put(tmp_path, happy__x=10)
        before = read_dataset(tmp_path).digest
        assert read_dataset(tmp_path).digest == before
        put(tmp_path, sad__y=10)
        assert read_dataset(tmp_path).digest != before

    def test_the_digest_is_of_the_dataset_and_of_no_wording(self, tmp_path: Path):
        put(tmp_path, happy__x=10)
        (tmp_path / "notes.txt").write_text("by hand")
        dataset = read_dataset(tmp_path)
        (left_out,) = dataset.skipped
        said_otherwise = replace(dataset, skipped=(replace(left_out, reason="no image"),))
        assert said_otherwise.digest == dataset.digest
        assert replace(dataset, skipped=()).digest != dataset.digest

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
        with pytest.raises(UserError, match="or a folder that it links to; choose another `out`"):
            refuse_inside(tmp_path / "elsewhere" / "out", [tmp_path / "data"])
        refuse_inside(tmp_path / "out", [tmp_path / "data"])

    def test_a_path_that_cannot_be_looked_at_is_refused(self, tmp_path: Path):
        put(tmp_path, data__x=1)
        with pytest.raises(UserError, match=r"cannot be accessed .*shorter name"):
            read_dataset(tmp_path / ("a" * 300))
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        with pytest.raises(UserError, match=r"cannot be accessed .*correct its links"):
            read_dataset(tmp_path / "loop")
        with pytest.raises(UserError, match="cannot be accessed"):
            refuse_inside(tmp_path / "out", [tmp_path / "loop"])
