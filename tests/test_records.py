"""Records of any run have the same fields, of the same types, and so load together."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from synfer_rt.data.writers import FORMATS, open_output
from synfer_rt.data.writers.parquet import schema
from synfer_rt.label_lines import EVERY, LINE, LINE_DIMENSIONS, LINE_SETS, blank_line
from synfer_rt.records import (
    AUGMENTED,
    FILE_NAME,
    ORIGINAL,
    RECORD,
    RECORD_SETS,
    blank_record,
    filled,
    markdown,
    record,
)
from synfer_rt.sampling.guidance import SemanticGuidance
from synfer_rt.vocabulary import facs
from tests.data.writers.small_run import SmallRun
from tests.hugging_face import rows

ASKED = {"AU12": 0.62, "L12": 0.1}
RUNS: dict[str, dict[str, Any]] = {
    "neutral": {"label": "neutral", "aus": {}, "layout": None, "probabilities": {}},
    "happy": {"label": "happy", "aus": ASKED, "layout": 3, "probabilities": {"happy": 1.0}},
    "steered": {
        "label": "sad",
        "semantic_guidance": asdict(SemanticGuidance("latent", 0.05)),
    },
    "photo": {"label": "fear", "source": "0.png", "source_sha256": "ab", "layout": 0},
    "original": {"label": "anger", "origin": ORIGINAL, "source": "a.png", "accepted": True},
    "augmented": {"label": "anger", "origin": AUGMENTED, "source": "a.png", "attempt": 1},
}


# As releases before the tables of fields wrote them: names, order, types and values; with the
# quality, which came later.
BLANK = (
    '{"index": 0, "seed": 0, "requested_label": "", "label": "", "label_scheme": "", '
    '"probabilities": {"sad": 0.0}, "rectified": false, "accepted": false, "prompt": "", '
    '"negative_prompt": "", "aus": {"AU6": 0.0}, "guidance": 0.0, '
    '"guidance_interval": {"low": 0.0, "high": 0.0}, "au_scale": 0.0, '
    '"quality": "", "solver": "", "steps": 0, "timesteps": "", "eta": 0.0, "cache_every": 0, '
    '"layout": -1, "layout_strength": 0.0, '
    '"semantic_guidance": {"form": "", "strength": 0.0, "start": 0.0, "every": 0}, '
    '"origin": "sampled", "source": "", "source_sha256": "", "noise_scale": 0.0, "attempt": 0, '
    '"bundle": "", "backend": ""}'
)
BLANK_LINE = (
    '{"index": 0, "file_name": "", "label": "", "asked": false, "accepted": false, '
    '"rectified": false, "given_label": "", "written_label": "", "label_problem": "", '
    '"error": "", "label_scheme": "affectnet-8", "bundle": "HASH", "backend": "cpu", '
    '"probabilities": {CLASSES}, "votes": {"a": "", "b": ""}, "aus": {UNITS}}'
)
COLUMNS = """\
image: struct<bytes: binary, path: string>
file_name: string
index: int64
seed: int64
requested_label: string
label: string
label_scheme: string
probabilities: struct<sad: double>
rectified: bool
accepted: bool
prompt: string
negative_prompt: string
aus: struct<AU6: double>
guidance: double
guidance_interval: struct<low: double, high: double>
au_scale: double
quality: string
solver: string
steps: int64
timesteps: string
eta: double
cache_every: int64
layout: int64
layout_strength: double
semantic_guidance: struct<form: string, strength: double, start: double, every: int64>
origin: string
source: string
source_sha256: string
noise_scale: double
attempt: int64
bundle: string
backend: string
"""


def types(value: Any) -> Any:
    return {name: types(x) for name, x in value.items()} if isinstance(value, dict) else type(value)


@pytest.mark.parametrize("said", RUNS.values(), ids=RUNS)
def test_every_record_has_all_fields_of_one_type(tiny_bundle, said):
    made = record(tiny_bundle, guidance=2, au_scale=1, **said)
    known = blank_record(tiny_bundle.classes, tiny_bundle.au_names)
    assert list(made) == list(known) and types(made) == types(known)
    assert list(made["aus"]) == list(tiny_bundle.au_names)
    assert list(made["probabilities"]) == list(tiny_bundle.classes)


def test_units_are_the_vector_that_the_model_was_told(tiny_bundle):
    aus = record(tiny_bundle, aus=ASKED)["aus"]
    assert {name: x for name, x in aus.items() if x} == {"AU12": 0.62, "L12": 0.1, "R12": 0.62}
    names = tiny_bundle.au_names
    np.testing.assert_array_equal(facs.au_vector(aus, names), facs.au_vector(ASKED, names))


def test_a_model_without_units_writes_columns_that_load_beside_those_of_others():
    assert types(blank_record(["sad"], None)) == types(blank_record(["sad"], facs.OPENGRAPHAU_41))


def test_fields_are_those_of_earlier_releases(tiny_bundle):
    assert json.dumps(blank_record(["sad"], ["AU6"])) == BLANK
    line = blank_line(tiny_bundle, ["a", "b"], "cpu")
    classes = ", ".join(f'"{name}": 0.0' for name in tiny_bundle.classes)
    units = ", ".join(f'"{name}": -1.0' for name in tiny_bundle.au_names)
    expected = BLANK_LINE.replace("CLASSES", classes).replace("UNITS", units)
    assert json.dumps(line) == expected.replace("HASH", tiny_bundle.bundle_hash)


def test_columns_of_parquet_are_those_of_earlier_releases():
    columns = schema({"classes": ["sad"], "au_vocabulary": ["AU6"]})
    assert "".join(f"{field.name}: {field.type}\n" for field in columns) == COLUMNS


@pytest.mark.parametrize(
    ("page", "table"),
    [
        ("sampling.md", markdown((FILE_NAME, *RECORD))),
        ("labelling.md", markdown(LINE, EVERY)),
        ("labelling.md", markdown((*LINE_DIMENSIONS, *LINE_SETS), EVERY)),
        ("labelling.md", markdown(RECORD_SETS)),
    ],
    ids=["record", "line", "further-lines", "further-records"],
)
def test_the_documentation_has_the_table_of_fields(page, table):
    text = (Path(__file__).resolve().parents[1] / "docs" / page).read_text()
    assert table in text, "python -m synfer_rt.records or synfer_rt.label_lines prints it"


def test_values_get_the_types_of_their_fields(tiny_bundle):
    form = blank_record(["sad"], ["AU6"])
    made = filled(form, {"guidance": 2, "layout": None, "semantic_guidance": {"strength": 1}})
    assert (made["guidance"], made["layout"]) == (2.0, -1) and types(made) == types(form)
    assert made["semantic_guidance"] == {"form": "", "strength": 1.0, "start": 0.0, "every": 0}
    assert filled(form, {}) == form and form == json.loads(BLANK)


def test_a_field_that_no_record_has_is_a_slip(tiny_bundle):
    with pytest.raises(KeyError):
        record(tiny_bundle, laebl="happy")


def write(out, bundle, format, said):
    settings = {
        "format": format,
        "count": 1,
        "classes": list(bundle.classes),
        "au_vocabulary": list(bundle.au_names),
    }
    made = record(bundle, **said)
    writer = open_output(out, settings, resume=False)
    writer.write([made], [SmallRun().png(0)])
    writer.finish()
    return made


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_runs_of_all_kinds_load_as_one_dataset(tiny_bundle, tmp_path, format, reverse):
    names = sorted(RUNS, reverse=reverse)
    place = tmp_path / "runs"
    made = [write(place / f"{i}", tiny_bundle, format, RUNS[name]) for i, name in enumerate(names)]
    found = rows(place, format, tmp_path / "cache", below="*/")
    for row in found:
        for name in ("image", "file_name", "class"):
            row.pop(name, None)
    order = [row["label"] + row["origin"] for row in found]
    expected = sorted(made, key=lambda row: order.index(row["label"] + row["origin"]))
    assert found == expected


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_of_neutral_faces_can_be_saved_as_parquet(tiny_bundle, tmp_path, format):
    from datasets import Dataset

    made = write(tmp_path / "out", tiny_bundle, format, RUNS["neutral"])
    (row,) = rows(tmp_path / "out", format, tmp_path / "cache")
    row.pop("image")
    Dataset.from_list([row]).to_parquet(tmp_path / "saved.parquet")
    (saved,) = pq.read_table(tmp_path / "saved.parquet").to_pylist()
    assert {name: saved[name] for name in made} == made
