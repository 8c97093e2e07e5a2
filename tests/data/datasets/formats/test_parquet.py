"""Columns of Parquet files: images, classes, paths."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synfer_rt.data.datasets import read_dataset
from synfer_rt.errors import UserError
from tests.small_datasets import labels_of, picture, put, shades


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

    def test_a_number_beyond_the_named_classes_has_no_other_meaning(self, tmp_path: Path):
        rows = {"image": [picture(1), picture(2)], "label": [3, 7]}
        classes = {"names": list(self.NAMES), "_type": "ClassLabel"}
        self.put_rows(tmp_path / "0.parquet", pa.table(rows), label=classes)
        items = read_dataset(tmp_path, label_scheme="affectnet-8").items
        assert [item.label for item in items] == ["happy", None]
        assert "7, beyond its 7 classes" in str(items[1].problem)

    def test_each_file_counts_its_classes_in_its_own_order(self, tmp_path: Path):
        for i, names in enumerate((["sad", "happy", "fear"], ["fear", "sad", "happy"])):
            classes = {"names": names, "_type": "ClassLabel"}
            rows = {"image": [picture(n) for n in range(3)], "label": [0, 1, 2]}
            self.put_rows(tmp_path / f"train-{i}.parquet", pa.table(rows), label=classes)
        found = [item.label for item in read_dataset(tmp_path, label_scheme="raf-db").items]
        assert found == ["sad", "happy", "fear", "fear", "sad", "happy"]

    def test_labels_in_structs(self, tmp_path: Path):
        faces = [{"emotion": 3, "score": 0.5}, {"emotion": 5, "score": 0.1}]
        rows = {"image": [picture(1), picture(2)], "faces": faces}
        classes = {"names": list(self.NAMES), "_type": "ClassLabel"}
        self.put_rows(tmp_path / "0.parquet", pa.table(rows), faces={"emotion": classes})
        items = read_dataset(tmp_path, label_scheme="raf-db").items
        assert [item.label for item in items] == ["happy", "sad"]

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
        with pytest.raises(UserError, match=rf"no column holds image files: {found}"):
            read_dataset(tmp_path)
        (tmp_path / "0.parquet").rename(tmp_path / "metadata.parquet")
        with pytest.raises(UserError, match="no column holds image files"):
            read_dataset(tmp_path)
