"""Samples of an image and its labels: as members of tars, and extracted."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from synfer_rt.data.datasets import read_dataset
from synfer_rt.errors import UserError
from tests.small_datasets import labels_of, picture, put, put_tar, shades, why


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
        assert "it is not in a class folder" in str(dataset.items[-1].problem)

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
            "0.tar/0.jpg": "another file in the archive has the same name; the first is used",
            "0.tar/0.png": "0.jpg is used as the image of its sample instead",
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
        assert "only the archives" in why(read_dataset(tmp_path))["happy/x.jpg"]


class TestSidecars:
    """Files beside each image, as an extracted shard has them."""

    def put_pair(self, root: Path, name: str, shade: int, **texts: str) -> None:
        put(root, **{name: shade})
        for kind, text in texts.items():
            (root / f"{name.replace('__', '/')}.{kind}").write_text(text)

    def test_json_and_cls(self, tmp_path: Path):
        self.put_pair(tmp_path, "train__0", 10, json='{"emotion": "fear"}')
        self.put_pair(tmp_path, "train__1.v2", 20, json='{"emotion": "sad"}')
        self.put_pair(tmp_path, "train__1.v3", 25, json='{"emotion": "anger"}')
        self.put_pair(tmp_path, "test__2", 30, cls="3")
        (tmp_path / "notes.csv").write_text("a,b\n")
        dataset = read_dataset(tmp_path, label_scheme="fer2013-csv")
        assert dataset.format == "sidecars" and shades(dataset) == [30, 10, 20, 25]
        assert labels_of(dataset) == {
            "test/2.jpg": "happy",
            "train/0.jpg": "fear",
            "train/1.v2.jpg": "sad",
            "train/1.v3.jpg": "anger",
        }
        assert [item.split for item in dataset.items] == ["test", *["train"] * 3]
        assert list(why(dataset)) == ["notes.csv"]

    def test_a_class_folder_is_the_label_where_they_have_none(self, tmp_path: Path):
        self.put_pair(tmp_path, "happy__0", 10, json='{"width": 3}')
        self.put_pair(tmp_path, "sad__0", 20, json='{"width": 3}')
        assert list(labels_of(read_dataset(tmp_path)).values()) == ["happy", "sad"]

    def test_json_that_says_nothing_is_named(self, tmp_path: Path):
        self.put_pair(tmp_path, "0", 10, json='{"shapes": [], "code": 3}')
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"0.jpg": None}
        assert "shapes, code is known to hold labels" in why(dataset)["*.json"]

    def test_a_few_are_no_layout(self, tmp_path: Path):
        put(tmp_path, happy__0=10, happy__1=20, sad__0=30)
        (tmp_path / "happy" / "0.json").write_text("{}")
        assert read_dataset(tmp_path).format == "folders"
