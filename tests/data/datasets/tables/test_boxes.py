"""Images of which tables say where the face is, and images that tables hold as numbers."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.datasets.items import Item, load
from synfer_rt.data.datasets.tables.boxes import Box, split_fragment
from tests.small_datasets import labels_of, put_tar, put_text, splits_of, why


def put_ramp(path: Path) -> None:
    """40 x 60 pixels that say where they are: red is the column, green the row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:60, :40]
    pixels = np.stack([columns, rows, rows * 0], -1).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def picture_of(item: Item) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(item.read())))


class TestFaceBoxes:
    @pytest.mark.parametrize(
        ("columns", "cells"),
        [
            ("face_x,face_y,face_width,face_height", "5,7,10,20"),
            ("x,y,w,h", "5,7,10,20"),
            ("left,top,right,bottom", "5,7,15,27"),
            ("xmin,ymin,xmax,ymax", "5.0,7.0,15.0,27.0"),
            ("face_box_top,face_box_left,face_box_right,face_box_bottom", "7,5,15,27"),
        ],
    )
    def test_an_image_is_cropped_to_its_box(self, tmp_path: Path, columns: str, cells: str):
        put_ramp(tmp_path / "a.png")
        put_text(tmp_path / "l.csv", f"file,label,{columns}\na.png,sad,{cells}\n")
        (item,) = read_dataset(tmp_path).items
        assert (item.name, item.label) == ("a.png#xywh=5,7,10,20", "sad")
        pixels = picture_of(item)
        assert pixels.shape == (20, 10, 3)
        assert pixels[0, 0, :2].tolist() == [5, 7] and pixels[-1, -1, :2].tolist() == [14, 26]

    def test_affectnet(self, tmp_path: Path):
        put_ramp(tmp_path / "Manually_Annotated_Images" / "1" / "a.png")
        header = "subDirectory_filePath,face_x,face_y,face_width,face_height,expression"
        put_text(tmp_path / "validation.csv", f"{header}\n1/a.png,2,3,20,30,1\n")
        (item,) = read_dataset(tmp_path).items
        assert (item.label, item.split) == ("happy", "val")
        assert picture_of(item)[0, 0, :2].tolist() == [2, 3]

    def test_raf_db_without_its_aligned_images(self, tmp_path: Path):
        for number in (1, 2, 3):
            put_ramp(tmp_path / "original" / f"train_{number}.png")
        put_ramp(tmp_path / "aligned" / "train_2_aligned.png")
        lines = "".join(f"train_{number}.png 5\n" for number in (1, 2, 3))
        put_text(tmp_path / "EmoLabel" / "list_patition_label.txt", lines)
        for number in (1, 2):
            file = tmp_path / "Annotation" / "boundingbox" / f"train_{number}_boundingbox.txt"
            put_text(file, "5.2 7.1 15.0 26.9\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {
            "original/train_1.png#xywh=5,7,10,20": "sad",
            "aligned/train_2_aligned.png": "sad",
            "original/train_3.png": "sad",
        }

    def test_expw_has_several_faces_in_an_image(self, tmp_path: Path):
        put_ramp(tmp_path / "image" / "a.png")
        put_ramp(tmp_path / "image" / "b.png")
        lines = ("a.png 0 1 2 12 21 90.1 3", "a.png 1 30 20 40 60 9.5 0", "b.png 0 5 5 9 9 1.0 6")
        put_text(tmp_path / "label" / "label.lst", "\n".join(lines))
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {
            "image/a.png#xywh=2,1,10,20": "happy",
            "image/a.png#xywh=20,30,20,30": "anger",
            "image/b.png#xywh=5,5,4,4": "neutral",
        }
        assert picture_of(dataset.items[1])[0, 0, :2].tolist() == [20, 30]

    def test_what_label_writes_of_a_box_means_the_same_box(self, tmp_path: Path):
        put_ramp(tmp_path / "a.png")
        put_text(tmp_path / "labels.csv", "file_name,label\na.png#xywh=5,7,10,20,sad\n")
        put_text(tmp_path / "labels.jsonl", '{"file_name": "a.png#xywh=5,7,10,20", "label": "sad"}')
        (tmp_path / "labels.csv").unlink()
        (item,) = read_dataset(tmp_path / "labels.jsonl").items
        assert item.name == "a.png#xywh=5,7,10,20" and picture_of(item).shape == (20, 10, 3)

    @pytest.mark.parametrize(
        ("cells", "reason"),
        [
            ("5,7,5,20", "is empty"),
            ("0.1,0.1,0.9,0.9", "is in fractions of the image; write it in pixels"),
            ("a,b,c,d", "is not four numbers"),
            ("0,0,nan,9", "is not four numbers of pixels"),
        ],
    )
    def test_a_box_that_is_none_is_reported(self, tmp_path: Path, cells: str, reason: str):
        put_ramp(tmp_path / "a.png")
        put_text(tmp_path / "l.csv", f"file,label,xmin,ymin,xmax,ymax\na.png,sad,{cells}\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"a.png": "sad"}
        assert reason in why(dataset)["l.csv: a.png"]
        assert why(dataset)["l.csv: a.png"].endswith("the whole image is used")

    def test_a_box_outside_the_image_is_no_face(self, tmp_path: Path):
        put_ramp(tmp_path / "a.png")
        put_text(tmp_path / "l.csv", "file,label,x,y,w,h\na.png,sad,30,50,40,40\n")
        (item,) = read_dataset(tmp_path).items
        assert "is outside the image of 40 x 60" in str(load(item, (4, 4)))

    def test_what_of_a_box_lies_outside_is_left_out(self, tmp_path: Path):
        put_ramp(tmp_path / "a.png")
        put_text(tmp_path / "l.csv", "file,label,x,y,w,h\na.png,sad,-2,-3,20,30\n")
        (item,) = read_dataset(tmp_path).items
        assert picture_of(item).shape == (27, 18, 3)

    def test_grey_stays_grey(self, tmp_path: Path):
        Image.new("L", (40, 60), 9).save(tmp_path / "a.png")
        put_text(tmp_path / "l.csv", "file,label,x,y,w,h\na.png,sad,1,1,20,30\n")
        (item,) = read_dataset(tmp_path).items
        assert Image.open(io.BytesIO(item.read())).mode == "L"

    def test_a_label_without_a_box_is_that_of_the_one_face(self, tmp_path: Path):
        put_ramp(tmp_path / "a.png")
        put_text(tmp_path / "boxes.csv", "file,x,y,w,h\na.png,1,1,20,30\n")
        put_text(tmp_path / "labels.csv", "file,label\na.png,sad\n")
        assert labels_of(read_dataset(tmp_path)) == {"a.png#xywh=1,1,20,30": "sad"}

    def test_boxes_in_archives(self, tmp_path: Path):
        put_ramp(tmp_path / "a.png")
        content = (tmp_path / "a.png").read_bytes()
        box = {"face_x": 5, "face_y": 7, "face_width": 10, "face_height": 20}
        columns = {"image": [content], "label": ["sad"], **{k: [v] for k, v in box.items()}}
        pq.write_table(pa.table(columns), tmp_path / "0.parquet")
        text = json.dumps({"label": "sad", **box}).encode()
        put_tar(tmp_path / "tars" / "0.tar", **{"0__png": content, "0__json": text})
        (tmp_path / "a.png").unlink()
        for path, name in (("0.parquet", "0.parquet/0-0"), ("tars", "0.tar/0")):
            (item,) = read_dataset(tmp_path / path).items
            assert (item.name, item.label) == (f"{name}#xywh=5,7,10,20", "sad")
            assert picture_of(item)[0, 0, :2].tolist() == [5, 7]

    def test_boxes_of_unknown_form_in_parquet_are_warned_of(self, tmp_path: Path):
        put_ramp(tmp_path / "a.png")
        content = (tmp_path / "a.png").read_bytes()
        columns = {"image": [content], "label": ["sad"], "bbox": [[1, 2, 30, 40]]}
        pq.write_table(pa.table(columns), tmp_path / "0.parquet")
        assert "its column bbox" in why(read_dataset(tmp_path / "0.parquet"))["0.parquet"]

    def test_boxes_of_unknown_form_are_warned_of(self, tmp_path: Path):
        put_ramp(tmp_path / "a.png")
        put_text(tmp_path / "l.csv", 'file,label,bbox\na.png,sad,"[1, 2, 30, 40]"\n')
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"a.png": "sad"}
        assert "its column bbox has face boxes" in why(dataset)["l.csv"]

    def test_fragments_of_names(self):
        box = Box(-1, 2, 3, 4)
        assert split_fragment("a.png" + box.fragment) == ("a.png", box)
        assert split_fragment("a#1.png") == ("a#1.png", None)


class TestPixels:
    def put_fer(self, root: Path, *rows: str, header: str = "emotion,pixels,Usage") -> None:
        put_text(root / "fer2013.csv", "\n".join((header, *rows)))

    def test_fer2013(self, tmp_path: Path):
        ramp = " ".join(str(i % 256) for i in range(48 * 48))
        grey = " ".join(["80"] * 48 * 48)
        self.put_fer(tmp_path, f"0,{ramp},Training", f'3,"{grey}",PublicTest')
        for path in (tmp_path, tmp_path / "fer2013.csv"):
            dataset = read_dataset(path)
            assert list(labels_of(dataset).values()) == ["anger", "happy"]
            assert list(splits_of(dataset).values()) == ["train", "val"]
            first, second = map(picture_of, dataset.items)
            assert first.shape == (48, 48) and (first.ravel() == np.arange(48 * 48) % 256).all()
            assert (second == 80).all() and not dataset.skipped

    def test_columns_in_another_order_and_with_spaces(self, tmp_path: Path):
        text = "emotion, Usage, pixels\n2, PrivateTest, 1 2 3 4\n"
        put_text(tmp_path / "icml_face_data.csv", text)
        (item,) = read_dataset(tmp_path).items
        assert (item.label, item.split) == ("fear", "test")
        assert picture_of(item).tolist() == [[1, 2], [3, 4]]

    def test_numbers_of_another_file_need_a_scheme(self, tmp_path: Path):
        put_text(tmp_path / "ck.csv", "emotion,pixels\n0,1 2 3 4\n")
        (item,) = read_dataset(tmp_path).items
        assert item.label is None and "`label_scheme`" in str(item.problem)
        (item,) = read_dataset(tmp_path, label_scheme="ck-plus").items
        assert item.label == "neutral"

    def test_fer_plus_labels_the_rows_of_fer2013(self, tmp_path: Path):
        self.put_fer(tmp_path, *(f"3,{i} {i} {i} {i},Training" for i in (10, 20, 30, 40)))
        text = (
            "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,"
            "unknown,NF\nTraining,fer0000000.png,0,0,0,9,1,0,0,0,0,0\nTraining,,0,0,0,0,0,0,0,0,0,10"
            "\nTraining,fer0000002.png,5,5,0,0,0,0,0,0,0,0\nTraining,fer0000003.png,0,8,0,0,0,0,0,0,2,0"
        )
        put_text(tmp_path / "fer2013new.csv", text)
        dataset = read_dataset(tmp_path)
        assert [item.label for item in dataset.items] == ["sad", None, None, "happy"]
        assert [picture_of(item)[0, 0] for item in dataset.items] == [10, 20, 30, 40]
        assert dataset.items[1].problem == "fer2013new.csv does not name it"
        assert "tie" in str(dataset.items[2].problem)
        assert why(dataset) == {
            "fer2013.csv": "its labels are replaced by those in fer2013new.csv",
            "fer2013new.csv": "1 of its rows name no image",
        }

    @pytest.mark.parametrize("pixels", ["1 2 3", "1 2 3 256", "1 2 3 x", "", "1 -2 3 4"])
    def test_what_is_no_square_of_greys_cannot_be_read(self, tmp_path: Path, pixels: str):
        self.put_fer(tmp_path, f"0,{pixels},Training", "1,1 2 3 4,Training")
        bad, good = read_dataset(tmp_path).items
        assert "pixels " in str(load(bad, (2, 2))) and not isinstance(load(good, (2, 2)), str)

    def test_a_row_that_is_cut_is_reported(self, tmp_path: Path):
        self.put_fer(tmp_path, "0,1 2 3 4,Training", "3")
        dataset = read_dataset(tmp_path)
        assert len(dataset.items) == 1
        assert why(dataset) == {"fer2013.csv/0000001": "the row has only 1 of 3 columns"}
