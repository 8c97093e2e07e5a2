"""Plans: read from YAML, JSON and TOML, checked with file and line, and turned into runs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from PIL import Image

from synfer_rt.api import Model
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.jobs.plan import reading
from synfer_rt.jobs.plan.plan import Plan
from synfer_rt.sampling.planned_requests import PlannedRequests
from synfer_rt.vocabulary.class_counts import CLASS_COUNTS
from tests import tiny_bundle as tiny

YAML = """\
# a plan
count: 40
seed: 5
classes:
  shares: {happy: 3, sadness: 1}
prompt: "a photo of a {age} person with a {expression} face"
attributes:
  age: [child, young]
aus:
  happy:
    AU12: [0.5, 1e-0]
    AU6: 0.5
guidance: 2.5
guidance_interval: [0.1, null]
size: ~
format: parquet
shard_size: 100
"""
TOML = """\
count = 40
seed = 5
prompt = "a photo of a {age} person with a {expression} face"
guidance = 2.5
guidance_interval = [0.1, inf]
format = "parquet"
shard_size = 100
[classes.shares]
happy = 3
sadness = 1
[attributes]
age = ["child", "young"]
[aus.happy]
AU12 = [0.5, 1]
AU6 = 0.5
"""
VALUES: dict[str, Any] = {
    "count": 40,
    "seed": 5,
    "classes": {"shares": {"happy": 3, "sadness": 1}},
    "prompt": "a photo of a {age} person with a {expression} face",
    "attributes": {"age": ["child", "young"]},
    "aus": {"happy": {"AU12": [0.5, 1.0], "AU6": 0.5}},
    "guidance": 2.5,
    "guidance_interval": [0.1, None],
    "format": "parquet",
    "shard_size": 100,
}
OPENFACE = """\
frame, face_id, timestamp, confidence, success, AU01_r, AU12_r, AU45_r, AU12_c, emotion
1, 0, 0.000, 0.98, 1, 0.50, 2.50, 1.00, 1.00, happiness
2, 0, 0.033, 0.02, 0, 0.00, 0.00, 0.00, 0.00, happiness
3, 0, 0.066, 0.98, 1, 0.00, 5.00, 0.00, 1.00, surprised
"""
PY_FEAT = """\
FaceRectX,FaceScore,AU01,AU12,AU28,anger,frame,input
10.5,0.99,0.123456,0.9,0.5,0.01,0,a.jpg
,,,,,,1,b.jpg
12.5,0.98,0,1.0,0.5,0.02,2,c.jpg
"""


def read_plan(source: Any, bundle: Bundle) -> Plan:
    """The plan, whose runs are checked too."""
    plan = reading.read_plan(source, bundle)
    plan.runs(bundle)
    return plan


def write(folder: Path, text: str, name: str = "plan.yaml") -> Path:
    path = folder / name
    path.write_text(dedent(text))
    return path


def first(plan: Plan, bundle: Bundle, count: int = 40) -> list[Any]:
    (run,) = plan.runs(bundle).values()
    return run.requests[:count]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plan.yaml", YAML),
        ("plan.yml", "\ufeff" + YAML),
        ("plan.toml", TOML),
        ("plan.json", json.dumps(VALUES)),
    ],
)
def test_the_three_formats_say_the_same(tmp_path: Path, tiny_bundle: Bundle, name: str, text: str):
    (tmp_path / name).write_text(text)
    plan = read_plan(tmp_path / name, tiny_bundle)
    wanted = read_plan(VALUES, tiny_bundle)
    assert (plan.format, plan.shard_size, plan.count) == ("parquet", 100, 40)
    assert first(plan, tiny_bundle) == first(wanted, tiny_bundle)
    settings, other = (each.runs(tiny_bundle)[""].settings("parquet") for each in (plan, wanted))
    assert settings == other and settings["guidance_interval"] == [0.1, None]


def test_yaml_is_read_by_its_core_schema(tmp_path: Path, tiny_bundle: Bundle):
    text = """
        count: 4
        guidance: 2e+0
        labels: [sad]
        prompt: a {hat} and {quoted}
        attributes:
          hat: [no, yes]
          quoted: ["1", "null"]
    """
    requests = first(read_plan(write(tmp_path, text), tiny_bundle), tiny_bundle, 60)
    assert requests[0].guidance == 2
    assert {r.prompt for r in requests} == {
        f"a {hat} and {word}" for hat in ("no", "yes") for word in ("1", "null")
    }


def test_yaml_needs_pyyaml_and_says_so(
    tmp_path: Path, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UserError, match=r"needs the package pyyaml; .*, or write .* \.toml or"):
        read_plan(write(tmp_path, YAML), tiny_bundle)
    read_plan(write(tmp_path, TOML, "plan.toml"), tiny_bundle)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("count: 4\ncuont: 5\n", "line 2: unknown key 'cuont'; the nearest is count."),
        ("count: 4\n\ncount: 5\n", "line 3: 'count' is written twice; write it once."),
        ("count: 4\nsteps: [\n", "line 3: this is not YAML"),
        ("count: &a 4\nseed: *a\n", r"line 2: the alias \*a is not read; write the value out."),
        ("count: 0\n", "line 1: 'count' must be from 1 to .*, got 0."),
        ("count: many\n", "line 1: 'count' must be a whole number .*, got 'many'."),
        ("seed: 1\nsteps: 0\n", "line 2: 'steps' must be .*, got 0"),
        ("seed: 1\nsolver: unipcc\n", "line 2: .*unipc"),
        ("seed: -1\n", "line 1: 'seed' must be from 0"),
        ("guidance: big\n", "line 1: 'guidance' must be a number, got 'big'"),
        ("format: parkett\n", "line 1: unknown format 'parkett'; the nearest is parquet."),
        ("labels: [happy, hapy]\n", "line 1: Unknown label 'hapy'; the nearest .* is happy"),
        ("classes: affectnet-8\n", "line 1: 'classes' must be such as {shares: affectnet-8}"),
        ("classes:\n  share: raf-db\n", "line 2: unknown key 'share' of classes; .* is shares"),
        ("classes:\n  shares: raf-bd\n", "line 2: unknown set 'raf-bd'; the nearest is raf-db."),
        ("classes: {shares: raf-db}\n", "line 1: shares need the number of images; add 'count'"),
        ("count: 3\nclasses:\n  counts: raf-db\n", "line 1: .*; leave out 'count'"),
        ("classes:\n  counts:\n    sad: 3\n    hapy: 2\n", "line 4: Unknown label 'hapy'"),
        ("classes:\n  counts: {sad: 3, sadness: 2}\n", "line 2: sad is there twice"),
        ("classes:\n  counts: {sad: 0.5}\n", "line 2: the count of sad must be a whole number"),
        ("classes:\n  counts: {sad: -1}\n", "line 2: the number of sad must be .*, got -1"),
        ("classes:\n  counts: {sad: 0}\n", "line 2: all numbers are 0; raise one"),
        ("classes:\n  counts: {sad: yes}\n", "line 2: the number of sad .*, got 'yes'"),
        ("labels: [sad]\nclasses: {counts: {sad: 1}}\n", "line 2: 'classes' and 'labels'"),
        ("prompt: a {age\n", "line 1: .*; write a brace itself twice"),
        ("seed: 1\nprompt: {expression} face\n", "line 2: this is not YAML .*; put a text .* in"),
        ("prompt: a {hat}\n", "line 1: nothing says what {hat} is; add it to 'attributes'"),
        ("attributes:\n  hat: [one]\n", "line 2: drawn sentences have age, .*; write a 'prompt'"),
        ("attributes:\n  age: [yuong]\n", "line 2: .* no age 'yuong'; the nearest is 'young'"),
        ("attributes:\n  age: balance\n", "line 2: 'age' must be such as balanced"),
        ("attributes:\n  age: [young, young]\n", "line 2: age has a word twice"),
        ("attributes:\n  age: {young: -1}\n", "line 2: the share of 'young' must be"),
        ("prompt: a {label}\nattributes:\n  hat: [x]\n", r"line 3: the prompt has no {hat}"),
        ("prompt: a {hat}\nattributes:\n  hat: balanced\n", "line 3: hat has no known words"),
        ("prompt: a face\naus: {AU12: 1}\n", "line 1: .* would be alike; write {expression}"),
        ("prompt: a {person}\nattributes: {age: [old]}\nlabels: [sad]\n", "line 2: .* age 'old'"),
        ("prompt: a {hat}\nattributes: {hat: [x], person: [y]}\n", "line 2: person follows"),
        ("prompt: 3\n", "line 1: a prompt must be a text, got 3"),
        ("aus:\n  AU12: 1.5\n", "line 2: AU12 must be a number from 0 to 1 or two, got 1.5"),
        ("aus:\n  AU12: [0.5, 0.2]\n", "line 2: AU12 must go from low to high"),
        ("aus:\n  AU12: [0.5]\n", r"line 2: AU12 must be .*, got \[0.5\]"),
        ("aus:\n  AU121: 1\n", "line 2: Unknown action unit 'AU121'; the nearest .* is AU12"),
        ("aus:\n  AU12: 1\n  au12: 1\n", "line 3: AU12 is there twice"),
        ("aus:\n  hapy: {AU12: 1}\n", "line 2: Unknown label 'hapy'"),
        ("aus:\n  happy: prototype\n", "line 2: 'happy' must be prototypes"),
        ("aus:\n  happy: {csv: no.csv}\n", r"no.csv cannot be read \(No such file"),
        ("splits: {train: 1, val/x: 1}\n", "line 1: a split's name must be"),
        ("splits:\n  train: 1\n  val: 0\n", "line 3: the share of val is 0"),
        ("count: 3\nsplits: {train: 9, val: 1}\n", "line 2: the split val gets no image"),
        ("splits: {train: 1, val: 1}\nlayout_from: x\n", "line 1: .*'layout_from' cannot be split"),
        ("count_accepted: true\nbudget: 3\n", "line 2: 'budget' is 3, fewer than"),
        ("seed: x\nsplits: {a: 1, b: 1}\n", "line 1: 'seed' must be a whole number"),
        ("layout_from: x\nattributes: {age: balanced}\n", "line 2: photos need a 'prompt'"),
        ("count: 3\nprompt: !!str 5\n", "line 2: the tag !!str is not read; leave it out"),
        ("count: 3\nprompt: a\x07b\n", r"line 2: the character '\\x07' is not allowed; remove"),
        ("labels: [sad]\naus:\n  fear: {AU12: 1}\n", "line 3: the plan makes no image of fear"),
        ("- count\n", "must hold keys with values"),
        ("1: 2\n", "line 1: unknown key 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    tmp_path: Path, tiny_bundle: Bundle, text: str, said: str
):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=said) as error:
        read_plan(path, tiny_bundle)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.json", '{\n"seed": 1,\n"steps": 0\n}', "line 3: 'steps' must be"),
        ("p.json", '{\n"seed": 1,\n"seed": 0\n}', "line 3: 'seed' is written twice"),
        ("p.json", '{"aus": {"happy":\n{"AU1":1,\n"AU12":\n[0,2]}}}', "line 3: AU12 must be"),
        ("p.json", '{\n"seed" 1}', "line 2: this is not JSON"),
        ("p.json", "[" * 100_000, "nested too deeply|not JSON"),
        ("p.json", '{"seed": ' + "9" * 5000 + "}", "holds a number that is too long"),
        ("p.toml", "seed = " + "9" * 5000, "holds a number that is too long"),
        ("p.toml", "seed = 1\nsteps = 0\n", "line 2: 'steps' must be"),
        ("p.toml", "seed = 1\n[aus.happy]\nAU1 = 1\nAU12 = 2\n", "line 4: AU12 must be"),
        ("p.toml", "seed = 1\naus.happy.AU12 = 2\n", "line 2: AU12 must be"),
        ("p.toml", "seed = 1\nseed = 2\n", "line 2: this is not TOML"),
        ("p.txt", "seed = 1", "must be a .yaml, .json or .toml file"),
    ],
)
def test_lines_are_known_in_json_and_toml_too(
    tmp_path: Path, tiny_bundle: Bundle, name: str, text: str, said: str
):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        read_plan(tmp_path / name, tiny_bundle)


def test_a_plan_reproduces_the_shares_of_affectnet(tiny_bundle: Bundle):
    whole = read_plan({"classes": {"counts": "affectnet-8"}}, tiny_bundle)
    assert whole.count == 287_651
    part = read_plan({"count": 1000, "classes": {"shares": "affectnet-8"}}, tiny_bundle)
    counts = Counter(request.label for request in first(part, tiny_bundle, 1000))
    for label, number in CLASS_COUNTS["affectnet-8"].items():
        assert abs(counts[label] - 1000 * number / 287_651) < 1
    assert counts.total() == 1000


def test_classes_are_copied_from_a_table(tmp_path: Path, tiny_bundle: Bundle):
    write(tmp_path, "image,expression\na,1\nb,1\nc,2\nd,1\ne,8\n", "affectnet.csv")
    table = {"csv": "affectnet.csv", "column": "expression", "label_scheme": "affectnet-8"}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"count": 8, "classes": {"shares": table}}))
    made = first(read_plan(path, tiny_bundle), tiny_bundle, 8)
    assert Counter(request.label for request in made) == {"happy": 6, "sad": 2}
    for changes, said in (
        ({"label_scheme": None}, "the labels are numbers; add their 'label_scheme'"),
        ({"label_scheme": "raf-db"}, "affectnet.csv, line 6: raf-db has no class 8"),
        ({"label_scheme": "raf"}, "Unknown label scheme 'raf'"),
        ({"column": "expresion"}, "no column expresion; the nearest is expression"),
        ({"column": "image"}, "affectnet.csv, line 2: 'a' is no label of this model"),
        ({"column": None}, "add 'column'"),
        ({"colum": "x"}, "unknown key 'colum' of a table; the nearest is column"),
    ):
        path.write_text(json.dumps({"count": 8, "classes": {"shares": {**table, **changes}}}))
        with pytest.raises(UserError, match=said):
            read_plan(path, tiny_bundle)


def test_attributes_are_copied_from_a_table(tmp_path: Path, tiny_bundle: Bundle):
    write(tmp_path, "name;sex\na;male\nb;female\nc;male\nd;\ne;male\n", "faces.csv")
    text = """
        prompt: a {sex} with a {expression} face
        attributes: {sex: {csv: faces.csv, column: sex}}
    """
    (run,) = read_plan(write(tmp_path, text), tiny_bundle).runs(tiny_bundle).values()
    assert isinstance(run.requests, PlannedRequests)
    assert run.requests.drawn_from.attributes == {"sex": {"male": 3.0, "female": 1.0}}


def test_aus_come_from_the_rows_that_openface_writes(tmp_path: Path, tiny_bundle: Bundle):
    write(tmp_path, OPENFACE, "of.csv")
    text = "labels: [happy, surprise]\naus: {csv: of.csv, column: emotion}\n"
    plan = read_plan(write(tmp_path, text), tiny_bundle)
    made = first(plan, tiny_bundle, 8)
    assert [dict(r.aus) for r in made[:2]] == [{"AU1": 0.1, "AU12": 0.5}, {"AU12": 1.0}]
    assert "rows without a face are left out, 1 in all" in plan.notes[0]
    assert "left out, since synfer-tiny lacks them: AU45_r" in plan.notes[1]


def test_aus_come_from_the_rows_that_py_feat_writes(tmp_path: Path, tiny_bundle: Bundle):
    write(tmp_path, PY_FEAT, "feat.csv")
    plan = read_plan(write(tmp_path, "aus: {csv: feat.csv}\n"), tiny_bundle)
    rows = {tuple(request.aus.items()) for request in first(plan, tiny_bundle, 40)}
    assert rows == {(("AU1", 0.1235), ("AU12", 0.9)), (("AU12", 1.0),)}


def test_aus_come_from_the_rows_that_label_writes(tmp_path: Path, voting_bundle: Bundle):
    """A picture that cannot be read has a row without intensities."""
    table, photos = tmp_path / "labels.csv", tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        Image.new("L", (16, 16), 80 * number).save(photos / f"{number}.png")
    (photos / "3.png").write_bytes(b"torn")
    labels = Model(voting_bundle, "onnxruntime-cpu", 1).label(photos, out=table)
    rows = [found.aus for found in labels if not found.error]
    assert len(rows) == 3
    plan = read_plan({"aus": {"csv": str(table)}}, voting_bundle)
    wanted = {tuple(round(x, 4) for x in row.values()) for row in rows}
    made = {
        tuple(request.aus.get(name, 0.0) for name in rows[0])
        for request in first(plan, voting_bundle, 60)
    }
    assert made == wanted
    assert "rows without a face are left out, 1 in all" in plan.notes[0]


def test_openface_comes_before_other_columns_of_a_unit(tmp_path: Path, tiny_bundle: Bundle):
    text = "\ufeffAU12, AU12_r, AU12_c\r\n0.9, 1.0, 1\r\n"
    (tmp_path / "t.csv").write_bytes(text.encode())
    plan = read_plan({"aus": {"csv": str(tmp_path / "t.csv")}}, tiny_bundle)
    assert [request.aus for request in first(plan, tiny_bundle, 1)] == [{"AU12": 0.2}]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("frame,AU12_r\n1,5.5\n", "t.csv, line 2: AU12_r must be from 0 to 5, got '5.5'"),
        ("frame,AU12\n1,0.5\n2,3.5\n", "t.csv, line 3: AU12 must be from 0 to 1, .* AU12_r"),
        ("frame,AU12\n1,x\n", "t.csv, line 2: AU12 must be from 0 to 1, got 'x'; correct it"),
        ("frame,AU12\n1,nan\n", "t.csv has no row with a face"),
        ("frame,AU12,AU6\n1,nan,1\n", "t.csv, line 2: AU12 must be .*, got 'nan'"),
        ("frame,AU12\n", "t.csv has no row with a face"),
        ("frame,score\n1,2\n", "t.csv, line 1: no column holds intensities"),
        ("", "t.csv, line 1: no column holds intensities"),
        ("frame,AU12,AU12\n1,2,3\n", "t.csv, line 1: the column AU12 is there twice"),
        ('frame,"AU12\n1,2\n', "t.csv, line 1: a column's name does not end; close its quotes"),
        ("frame,AU12_r,au012_r\n1,2,3\n", "t.csv, line 1: AU12_r and au012_r are the same unit"),
        ("frame,AU12,AU012\n1,0,1\n", "t.csv, line 1: AU12 and AU012 are the same unit"),
        ("frame;AU12_r\n1;2,5\n", "line 2: AU12_r .*, got '2,5'; .* write decimals with a point"),
        ("frame,AU12,AU6\n1,-1,0.5\n", "t.csv, line 2: AU12 must be from 0 to 1, got '-1'"),
        ("frame,AU12_c\n1,1\n", "t.csv, line 1: no column holds intensities"),
        ("frame,AU12\n1,0.5,3\n", "t.csv, line 2: it has 3 cells, .* names 2 columns"),
        ("frame,AU12\n1,\xff\n", "t.csv is not a CSV file in UTF-8"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_line(
    tmp_path: Path, tiny_bundle: Bundle, table: str, said: str
):
    (tmp_path / "t.csv").write_text(table, encoding="latin-1")
    with pytest.raises(UserError, match=said):
        read_plan(write(tmp_path, "aus: {csv: t.csv}\n"), tiny_bundle)


def test_a_model_without_aus_takes_no_aus(tmp_path: Path):
    bundle = tiny.build(tmp_path / "bundle", with_aus=False)
    with pytest.raises(UserError, match="without action units; leave out 'aus'"):
        read_plan({"aus": {"AU12": 1}}, bundle)


def test_splits_have_the_shares_of_every_class(tiny_bundle: Bundle):
    plan = read_plan(
        {"classes": {"counts": {"happy": 50, "fear": 10}}, "splits": {"train": 4, "val": 1}},
        tiny_bundle,
    )
    runs = plan.runs(tiny_bundle)
    assert {name: run.count for name, run in runs.items()} == {"train": 48, "val": 12}
    counts = Counter(request.label for request in runs["val"].requests[:12])
    assert counts == {"happy": 10, "fear": 2}
    train, val = ({r.layout for r in run.requests[:100]} for run in runs.values())
    assert not train & val


def test_accepted_images_are_counted_by_class(voting_bundle: Bundle):
    counts = {"happy": 5, "fear": 2}
    plan = read_plan({"classes": {"counts": counts}, "count_accepted": True}, voting_bundle)
    (run,) = plan.runs(voting_bundle).values()
    quotas = run.quotas()
    assert quotas is not None and quotas.quota == counts
    assert run.count == 70
    assert run.settings("parquet")["accepted_per_class"] == counts
