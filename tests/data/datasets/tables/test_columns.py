"""Tables as people write them: names of columns, separators, headers, votes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synfer_rt.data.datasets import read_dataset
from synfer_rt.errors import UserError
from tests.small_datasets import labels_of, picture, put, put_text, splits_of, why

FACES = {"images/a.jpg": "happy", "images/b.jpg": "sad", "images/c.jpg": "fear"}


def put_faces(root: Path) -> None:
    put(root, images__a=10, images__b=20, images__c=30)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("image_path", "label"),
        ("img_path", "emotion"),
        ("image_name", "expression"),
        ("Image name", "Emotion Label"),
        ("filePath", "class_name"),
        ("img", "labels"),
        ("fname", "category"),
        ("picture_location", "feeling"),
        ("id", "label"),
    ],
)
def test_columns_go_by_the_names_in_use_and_by_their_cells(tmp_path: Path, image: str, label: str):
    put_faces(tmp_path)
    end = "" if image == "id" else ".jpg"
    rows = [f"{Path(name).stem}{end},{word}" for name, word in FACES.items()]
    put_text(tmp_path / "labels.csv", "\n".join((f"{image},{label}", *rows)))
    assert labels_of(read_dataset(tmp_path)) == FACES


@pytest.mark.parametrize(
    ("name", "separator", "before"),
    [
        ("labels.csv", ";", ""),
        ("labels.csv", "|", ""),
        ("labels.tsv", "\t", ""),
        ("labels.txt", "\t", ""),
        ("labels.csv", "; ", "\ufeff"),
        ("labels.csv", ";", "sep=;\r\n"),
        ("labels.txt", " ", "# "),
    ],
)
def test_any_separator(tmp_path: Path, name: str, separator: str, before: str):
    put_faces(tmp_path)
    rows = [("file", "label"), *((Path(name).name, word) for name, word in FACES.items())]
    text = before + "".join(separator.join(row) + "\r\n" for row in rows)
    (tmp_path / name).write_bytes(text.encode())
    assert labels_of(read_dataset(tmp_path)) == FACES


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_encodings_of_spreadsheets(tmp_path: Path, encoding: str):
    put(tmp_path, **{"été": 10})
    (tmp_path / "labels.csv").write_bytes('file;label\n"été.jpg";"sad"\n'.encode(encoding))
    assert labels_of(read_dataset(tmp_path)) == {"été.jpg": "sad"}


def test_another_encoding_is_refused_with_its_remedy(tmp_path: Path):
    put(tmp_path, **{"é": 10})
    (tmp_path / "labels.csv").write_bytes("file,label\né.jpg,sad\n".encode("latin-1"))
    with pytest.raises(UserError, match="save it as UTF-8"):
        read_dataset(tmp_path)


class TestWithoutAHeader:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("labels.csv", "a.jpg,3\nb.jpg,4\nc.jpg,2\n"),
            ("labels.csv", "3,a.jpg\n4,b.jpg\n2,c.jpg\n"),
            ("list.txt", "images/a.jpg 3\nimages/b.jpg 4\nimages/c.jpg 2\n"),
        ],
    )
    def test_one_column_besides_the_image_is_its_label(self, tmp_path: Path, name: str, text: str):
        put_faces(tmp_path)
        put_text(tmp_path / name, text)
        assert labels_of(read_dataset(tmp_path, label_scheme="fer2013-csv")) == FACES

    def test_columns_go_by_their_cells(self, tmp_path: Path):
        put_faces(tmp_path)
        put_text(tmp_path / "l.csv", "a.jpg,0.1,happy,Training\nb.jpg,0.2,sad,PrivateTest\n")
        dataset = read_dataset(tmp_path)
        assert list(labels_of(dataset).values()) == ["happy", "sad"]
        assert list(splits_of(dataset).values()) == ["train", "test"]

    def test_two_columns_of_numbers_are_no_label(self, tmp_path: Path):
        put_faces(tmp_path)
        put_text(tmp_path / "labels.csv", "a.jpg,3,0\nb.jpg,4,1\n")
        dataset = read_dataset(tmp_path, label_scheme="fer2013-csv")
        assert set(labels_of(dataset).values()) == {None}
        assert "add a header with file_name and label" in why(dataset)["labels.csv"]

    def test_a_list_of_names_says_the_split(self, tmp_path: Path):
        put(tmp_path, happy__a=10, sad__b=20)
        put_text(tmp_path / "train.txt", "happy/a.jpg\n")
        put_text(tmp_path / "test.txt", "sad/b.jpg\n")
        put_text(tmp_path / "README.txt", "Faces.\nSee happy and sad.\n")
        dataset = read_dataset(tmp_path)
        assert splits_of(dataset) == {"happy/a.jpg": "train", "sad/b.jpg": "test"}
        assert labels_of(dataset) == {"happy/a.jpg": "happy", "sad/b.jpg": "sad"}

    @pytest.mark.parametrize("name", ["bad_images.txt", "bad.csv"])
    def test_a_list_that_does_not_say_what_for_is_named(self, tmp_path: Path, name: str):
        put(tmp_path, happy__a=10, sad__b=20)
        put_text(tmp_path / name, "happy/a.jpg\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"happy/a.jpg": "happy", "sad/b.jpg": "sad"}
        assert why(dataset) == {name: "it lists images and says nothing of them"}
        assert list(labels_of(read_dataset(tmp_path / name))) == ["happy/a.jpg"]

    def test_a_table_of_other_things_leaves_class_folders_what_they_are(self, tmp_path: Path):
        put(tmp_path, happy__a=10, sad__b=20)
        put_text(tmp_path / "ages.csv", "file,age\nhappy/a.jpg,30\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"happy/a.jpg": "happy", "sad/b.jpg": "sad"}
        assert list(why(dataset)) == ["ages.csv"]

    def test_names_with_spaces_in_a_list_of_spaces(self, tmp_path: Path):
        put(tmp_path, **{"my face": 10})
        put_text(tmp_path / "list.txt", "my face.jpg happy\n")
        assert labels_of(read_dataset(tmp_path)) == {"my face.jpg": "happy"}

    def test_affectnets_validation_csv(self, tmp_path: Path):
        put(tmp_path, images__1__a=10, images__2__b=20, images__2__c=30)
        rows = ((f"{path}.jpg", n) for path, n in (("1/a", 6), ("2/b", 1), ("2/c", 10)))
        text = "".join(f"{name},1,2,9,9,3.5;4.5;5,{n},-0.1,0.2\n" for name, n in rows)
        put_text(tmp_path / "validation.csv", text)
        dataset = read_dataset(tmp_path)
        assert dataset.format == "affectnet"
        assert labels_of(dataset) == {
            "images/1/a.jpg#xywh=1,2,9,9": "anger",
            "images/2/b.jpg#xywh=1,2,9,9": "happy",
            "images/2/c.jpg#xywh=1,2,9,9": None,
        }


class TestLabels:
    def test_a_word_goes_before_a_number(self, tmp_path: Path):
        put_faces(tmp_path)
        text = "file,label,label_name\na.jpg,1,happy\nb.jpg,2,sad\nc.jpg,3,fear\n"
        put_text(tmp_path / "labels.csv", text)
        assert labels_of(read_dataset(tmp_path)) == FACES
        assert labels_of(read_dataset(tmp_path, label_scheme="fer2013-csv")) == FACES

    def test_columns_that_contradict_each_other_are_no_label(self, tmp_path: Path):
        put_faces(tmp_path)
        put_text(tmp_path / "l.csv", "file,label,emotion\na.jpg,happy,sad\nb.jpg,sad,Sadness\n")
        first, second = read_dataset(tmp_path).items
        assert first.label is None and second.label == "sad"
        assert "its column label says happy, but its column emotion sad" in str(first.problem)

    def test_the_word_of_a_folder_goes_before_a_number_without_meaning(self, tmp_path: Path):
        put(tmp_path, happy__a=10, sad__b=20)
        put_text(tmp_path / "l.csv", "file,label\nhappy/a.jpg,3\nsad/b.jpg,9\n")
        assert [item.label for item in read_dataset(tmp_path).items] == ["happy", "sad"]
        found = read_dataset(tmp_path, label_scheme="affectnet-8").items
        assert [item.label for item in found] == ["surprise", None]  # 9 is what it says: uncertain

    def test_a_label_in_an_object_of_a_row_is_its_label(self, tmp_path: Path):
        put_faces(tmp_path)
        rows = [{"objects": {"emotion": "happy", "width": 3}}, {"emotion": "sad"}, {"objects": {}}]
        lines = [
            json.dumps({"file_name": f"{n}.jpg", **r}) for n, r in zip("abc", rows, strict=True)
        ]
        put_text(tmp_path / "images" / "metadata.jsonl", "\n".join(lines))
        assert [item.label for item in read_dataset(tmp_path).items] == ["happy", "sad", None]

    def test_a_list_of_several_is_not_understood(self, tmp_path: Path):
        put_faces(tmp_path)
        said = {"a": ["happy"], "b": ["sad", "fear"], "c": []}
        rows = [{"file_name": f"images/{name}.jpg", "label": word} for name, word in said.items()]
        put_text(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
        items = read_dataset(tmp_path).items
        assert [item.label for item in items] == ["happy", None, None]
        assert [item.written for item in items] == ["happy", "sad, fear", None]

    def test_lists_alone_are_not_understood_either(self, tmp_path: Path):
        put_faces(tmp_path)
        rows = [{"file_name": f"images/{name}.jpg", "label": [0, 1, 0]} for name in "abc"]
        put_text(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
        for item in read_dataset(tmp_path, label_scheme="fer2013-csv").items:
            assert item.not_understood and "a list of several values" in str(item.problem)

    @pytest.mark.parametrize("yes_no", [("1", "0"), ("True", "False"), ("1.0", "")])
    @pytest.mark.parametrize("prefix", ["", "emotion_", "is "])
    def test_one_hot_columns(self, tmp_path: Path, yes_no: tuple[str, str], prefix: str):
        put_faces(tmp_path)
        yes, no = yes_no
        lines = [",".join(("file", *(prefix + word for word in ("happy", "Sadness", "fear"))))]
        for i, name in enumerate("abc"):
            lines.append(",".join((f"{name}.jpg", *(yes if i == j else no for j in range(3)))))
        put_text(tmp_path / "labels.csv", "\n".join(lines))
        assert labels_of(read_dataset(tmp_path)) == FACES

    def test_the_class_with_most_votes_is_the_label(self, tmp_path: Path):
        put(tmp_path, **{name: 10 for name in "abcd"})
        text = (
            "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,"
            "unknown,NF\nTraining,a.jpg,4,0,0,1,3,2,0,0,0,0\nPublicTest,b.jpg,0,5,5,0,0,0,0,0,0,0\n"
            "Training,c.jpg,1,0,0,0,0,0,0,0,9,0\nPrivateTest,d.jpg,0,0,0,0,0,0,0,0,0,0\n"
            "Training,,0,0,0,0,0,0,0,0,0,10\n"
        )
        put_text(tmp_path / "fer2013new.csv", text)
        dataset = read_dataset(tmp_path)
        assert [item.label for item in dataset.items] == ["neutral", None, None, None]
        assert [item.split for item in dataset.items] == ["train", "val", "train", "test"]
        problems = [str(item.problem) for item in dataset.items[1:]]
        assert problems == [
            "its votes tie: happy and surprise have 5 each",
            "most of its votes are for unknown",
            "no class has a vote",
        ]
        assert why(dataset) == {"fer2013new.csv": "1 of its rows name no image"}

    def test_fer_plus_tables_beside_their_images(self, tmp_path: Path):
        put(tmp_path, FER2013Train__fer1=10, FER2013Valid__fer2=20)
        row = '"(0, 0, 48, 48)",{}\n'
        for folder, name, votes in (("Train", 1, "0,0,9,1"), ("Valid", 2, "1,0,0,9")):
            line = f"fer{name}.jpg," + row.format(f"{votes},0,0,0,0,0,0")
            put_text(tmp_path / f"FER2013{folder}" / "label.csv", line)
        dataset = read_dataset(tmp_path)
        assert list(labels_of(dataset).values()) == ["surprise", "sad"]
        assert list(splits_of(dataset).values()) == ["train", "val"] and not dataset.skipped


class TestWhatIsNotUnderstood:
    def test_a_table_that_names_no_images_is_named_with_its_columns(self, tmp_path: Path):
        put_faces(tmp_path)
        put_text(tmp_path / "people.csv", "who;mood\nann;blue\n")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == dict.fromkeys(FACES)
        reason = (
            "none of its columns who, mood names images; rename the column of images to file_name"
        )
        assert why(dataset) == {"people.csv": reason}
        with pytest.raises(UserError, match="none of its columns who, mood names images"):
            read_dataset(tmp_path / "people.csv")

    def test_labels_in_no_known_column_are_said_with_the_columns(self, tmp_path: Path):
        put_faces(tmp_path)
        put_text(tmp_path / "labels.csv", "file,code\na.jpg,1\nb.jpg,2\nc.jpg,3\n")
        dataset = read_dataset(tmp_path, label_scheme="fer2013-csv")
        reason = (
            "none of its columns file, code is known to hold labels; "
            "rename the column of labels to label"
        )
        assert labels_of(dataset) == dict.fromkeys(FACES) and why(dataset) == {"labels.csv": reason}
        assert {item.problem for item in dataset.items} == {reason}

    def test_a_split_in_words_of_its_own_keeps_its_parts_apart(self, tmp_path: Path):
        put_faces(tmp_path)
        put_text(tmp_path / "l.csv", "file,label,split\na.jpg,sad,0\nb.jpg,sad,1\nc.jpg,sad,0\n")
        assert set(splits_of(read_dataset(tmp_path)).values()) == {"0", "1"}
        assert len(read_dataset(tmp_path, split="0").items) == 2

    @pytest.mark.parametrize("name", ["faces.xlsx", "faces.arrow", "faces.rar", "faces.pkl"])
    def test_files_of_other_kinds_are_named_with_a_remedy(self, tmp_path: Path, name: str):
        put(tmp_path, happy__a=10)
        (tmp_path / name).write_bytes(b"?")
        dataset = read_dataset(tmp_path)
        assert labels_of(dataset) == {"happy/a.jpg": "happy"}
        assert "save" in why(dataset)[name] or "unpack" in why(dataset)[name]
        (tmp_path / "happy" / "a.jpg").unlink()
        (tmp_path / "LICENSE").write_text("free")
        for path in (tmp_path, tmp_path / name):
            with pytest.raises(UserError, match=r"faces\..*: .*(save|unpack)"):
                read_dataset(path)


class TestOtherFiles:
    @pytest.mark.parametrize("beside", [True, False])
    def test_pixels_in_parquet_are_named_with_a_remedy(self, tmp_path: Path, beside: bool):
        table = pa.table({"emotion": [3], "pixels": [" ".join(["70"] * 2304)]})
        pq.write_table(table, tmp_path / "fer2013.parquet")
        if beside:
            put(tmp_path, happy__a=10)
            assert "save the table as CSV" in why(read_dataset(tmp_path))["fer2013.parquet"]
        else:
            with pytest.raises(UserError, match="save the table as CSV"):
                read_dataset(tmp_path)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("labels.json", [{"image": Path(k).name, "emotion": v} for k, v in FACES.items()]),
            ("labels.json", {Path(k).name: v for k, v in FACES.items()}),
            ("labels.json", {Path(k).name: {"label": v} for k, v in FACES.items()}),
        ],
    )
    def test_json(self, tmp_path: Path, name: str, content: object):
        put_faces(tmp_path)
        (tmp_path / name).write_text(json.dumps(content))
        (tmp_path / "images" / "a.json").write_text('{"a.jpg": "disgust"}')  # of the image alone
        assert labels_of(read_dataset(tmp_path)) == FACES

    def test_metadata_parquet(self, tmp_path: Path):
        put_faces(tmp_path)
        features = {"label": {"names": ["sad", "fear", "happy"], "_type": "ClassLabel"}}
        table = pa.table({"file_name": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"], "label": [2, 0, 1, 1]})
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
        pq.write_table(table, tmp_path / "images" / "metadata.parquet")
        dataset = read_dataset(tmp_path)
        assert dataset.format == "table" and labels_of(dataset) == FACES
        assert why(dataset) == {"images/metadata.parquet: d.jpg": "there is no such file"}


PERSONS = ["Subject ID", "person", "identity", "actor_id", "participant"]


@pytest.mark.parametrize("column", PERSONS)
def test_persons_are_read_from_tables(tmp_path: Path, column: str):
    put_faces(tmp_path)
    rows = [
        f"{name},{word},{person}"
        for (name, word), person in zip(FACES.items(), ("7", "7", ""), strict=True)
    ]
    put_text(tmp_path / "list.csv", "\n".join([f"path,label,{column}", *rows]))
    dataset = read_dataset(tmp_path)
    assert labels_of(dataset) == FACES
    assert [item.person for item in dataset.items] == ["7", "7", None]


def test_persons_are_read_from_json_and_parquet(tmp_path: Path):
    lines = [{"file_name": "a.jpg", "label": "sad", "person": 7}]
    put(tmp_path, lines__a=10, shards__x=20)
    put_text(tmp_path / "lines" / "metadata.jsonl", json.dumps(lines[0]))
    put_text(tmp_path / "shards" / "x.json", json.dumps({"label": "sad", "subject": "S1"}))
    table = pa.table({"image": [picture(10)], "label": ["sad"], "identity": [3]})
    (tmp_path / "parquet").mkdir()
    pq.write_table(table, tmp_path / "parquet" / "a.parquet")
    found = {
        name: [item.person for item in read_dataset(tmp_path / name, format).items]
        for name, format in (("lines", "auto"), ("shards", "auto"), ("parquet", "auto"))
    }
    assert found == {"lines": ["7"], "shards": ["S1"], "parquet": ["3"]}
