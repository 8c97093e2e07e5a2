"""Labels of existing images."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from synfer_rt import UserError
from synfer_rt.api import Model
from synfer_rt.jobs.label_results import LabelledImage
from synfer_rt.label_lines import ANY_LINE


@pytest.mark.parametrize("suffix", ["", ".jsonl", ".csv"])
def test_labels_are_records_with_types(
    model: Model, photos: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"labels{suffix}" if suffix else None
    labels = model.label(photos, out=out, label_scheme="raf-db")
    assert labels.path == out and (out is None or out.exists())
    images = list(labels)
    assert len(images) == len(labels) == labels.new == 4
    assert [image.file_name for image in images][-1] == "sad/200.png"
    for image in images:
        assert image.given_label == image.file_name.partition("/")[0]
        assert isinstance(image.accepted, bool) and image.asked is True
        assert image.label == max(image.probabilities, key=image.probabilities.__getitem__)
        assert image.votes.keys() == set(model.bundle.annotators)
    assert labels.labels.total() == 4 and labels.given == 4


def test_a_table_of_csv_reads_back_as_the_labels_in_memory(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"not an image")
    sources = [photos, tmp_path / "broken.png"]
    written = model.label(sources, out=tmp_path / "labels.csv")
    assert list(written) == list(model.label(sources))
    again = model.label(sources, out=tmp_path / "labels.csv", resume=True)
    assert again.new == 0 and list(again) == list(written)


def test_the_fields_of_a_label_are_those_of_the_table() -> None:
    assert [field.name for field in fields(LabelledImage)] == [field.name for field in ANY_LINE]


def test_labels_refuse_what_cannot_be(model: Model, photos: Path) -> None:
    with pytest.raises(UserError, match="`images` must name"):
        model.label([])
    with pytest.raises(UserError, match="`accept_rate`"):
        model.label(photos, accept_rate=0.5, threshold=0.5)
