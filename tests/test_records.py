"""Records of any run have the same fields, of the same types, and so load together."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from synfer_rt.data.writers import FORMATS, open_output
from synfer_rt.records import AUGMENTED, ORIGINAL, blank, record
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


def types(value: Any) -> Any:
    return {name: types(x) for name, x in value.items()} if isinstance(value, dict) else type(value)


@pytest.mark.parametrize("said", RUNS.values(), ids=RUNS)
def test_every_record_has_all_fields_of_one_type(tiny_bundle, said):
    made = record(tiny_bundle, guidance=2, au_scale=1, **said)
    known = blank(tiny_bundle.classes, tiny_bundle.au_names)
    assert list(made) == list(known) and types(made) == types(known)
    assert list(made["aus"]) == list(tiny_bundle.au_names)
    assert list(made["probabilities"]) == list(tiny_bundle.classes)


def test_units_are_the_vector_that_the_model_was_told(tiny_bundle):
    aus = record(tiny_bundle, aus=ASKED)["aus"]
    assert {name: x for name, x in aus.items() if x} == {"AU12": 0.62, "L12": 0.1, "R12": 0.62}
    names = tiny_bundle.au_names
    np.testing.assert_array_equal(facs.au_vector(aus, names), facs.au_vector(ASKED, names))


def test_a_model_without_units_writes_columns_that_load_beside_those_of_others():
    assert types(blank(["sad"], None)) == types(blank(["sad"], facs.OPENGRAPHAU_41))


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
