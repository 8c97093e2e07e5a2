"""What a run takes from a dataset of photos, and which photos it cannot use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.jobs.photo_reading import read_photos
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.sampling import inversion
from synfer_rt.vocabulary.prompts import expression_alone
from tests.small_datasets import put, put_text

ROWS = (
    "file,label,caption,AU6,AU12",
    "a.jpg,happy,a smiling man,0.5,0.75",
    "b.jpg,sad,,0,0.1",
    "c.jpg,happy,a laughing woman,,",
    "d.jpg,,nobody knows,0.2,0.2",
    "e.jpg,contempt,,0.4,2",
    "gone.jpg,sad,,0,0",
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    put(root, a=10, b=20, c=30, d=40, e=50)
    put_text(root / "labels.csv", "\n".join(ROWS))
    return root


def read(bundle: Bundle, photos: Path, **settings: Any) -> tuple[Any, Any]:
    return read_photos({"layout_from": photos, **settings}, bundle, None)


def test_the_photos_of_a_folder_are_read_as_ever(voting_bundle: Bundle, photos: Path):
    """A table beside them changes nothing unless a setting asks for it."""
    found, facts = read(voting_bundle, photos, aus_from="prototype")
    assert facts is None and found == inversion.read_photos(photos, voting_bundle.image_size)
    run = make_run(voting_bundle, count=9, layout_from=photos)
    settings = run.settings("parquet")
    assert settings["photo_set"] == found.digest
    assert not settings.keys() & {"keep_label", "aus_from", "photo_format"}


def test_labels_and_captions_are_those_of_the_table(voting_bundle: Bundle, photos: Path):
    found, facts = read(voting_bundle, photos, keep_label=True)
    said = dict(zip(found.names, zip(facts.labels, facts.captions, strict=True), strict=True))
    assert said == {
        "a.jpg": ("happy", "a smiling man"),
        "b.jpg": ("sad", None),
        "c.jpg": ("happy", "a laughing woman"),
        "e.jpg": ("contempt", None),
    }
    assert set(found.skipped) == {"d.jpg", "labels.csv: gone.jpg"}
    assert "no label" in found.skipped["d.jpg"]
    requests = make_run(voting_bundle, count=4, layout_from=photos, keep_label=True).requests
    for request in requests[:4]:
        assert request.layout is not None
        label, caption = said[found.names[request.layout]]
        assert request.label == label
        assert request.prompt == (caption or expression_alone(request.label))
    assert {r.layout for r in requests[:4]} == {0, 1, 2, 3} and requests[4].layout == 0
    assert requests.labels == ("happy", "sad", "contempt")


def test_a_given_prompt_goes_before_captions(voting_bundle: Bundle, photos: Path):
    run = make_run(voting_bundle, count=4, layout_from=photos, keep_label=True, prompt="a man")
    assert {request.prompt for request in run.requests[:4]} == {"a man"}


def test_action_units_are_those_of_the_table(voting_bundle: Bundle, photos: Path):
    found, facts = read(voting_bundle, photos, aus_from="photo")
    said = dict(zip(found.names, facts.aus, strict=True))
    assert said == {
        "a.jpg": {"AU6": 0.5, "AU12": 0.75},
        "b.jpg": {"AU6": 0, "AU12": 0.1},
        "d.jpg": {"AU6": 0.2, "AU12": 0.2},
    }
    assert found.skipped["c.jpg"] == "no table says its action units"
    assert "its column au12 must be from 0 to 1, but says '2'" in found.skipped["e.jpg"]
    run = make_run(voting_bundle, count=24, layout_from=photos, aus_from="photo")
    shown = [dict(request.aus) for request in run.requests[:24]]
    assert shown == [dict(aus) for aus in facts.aus for _ in range(8)]
    assert [r.label for r in run.requests[:8]] == list(voting_bundle.classes)


def test_units_are_matched_to_the_models_by_name(voting_bundle: Bundle, photos: Path):
    known = replace(voting_bundle, au_names=("AU1", "L12"))
    _, facts = read(known, photos, aus_from="photo")
    assert facts.aus[0] == {"L12": 0.75}
    unknown = replace(voting_bundle, au_names=("AU1", "AU2"))
    with pytest.raises(UserError, match="knows none of its action units"):
        read(unknown, photos, aus_from="photo")


def test_every_beginning_has_the_shares_of_the_labels(voting_bundle: Bundle, tmp_path: Path):
    put(tmp_path, **{f"happy__{i}": i for i in range(6)}, **{f"sad__{i}": i for i in range(2)})
    _, facts = read(voting_bundle, tmp_path, keep_label=True)
    labels = list(facts.labels)
    assert labels[:4].count("sad") == labels[4:].count("sad") == 1


def test_the_photo_set_covers_what_is_taken(voting_bundle: Bundle, photos: Path):
    def digest(**settings: Any) -> str:
        run = make_run(voting_bundle, count=3, layout_from=photos, **settings)
        return run.settings("parquet")["photo_set"]

    before = digest(keep_label=True), digest(aus_from="reader")
    text = (photos / "labels.csv").read_text()
    (photos / "labels.csv").write_text(text.replace("b.jpg,sad", "b.jpg,fear"))
    assert digest(keep_label=True) != before[0]
    assert digest(aus_from="reader") == before[1]
    (photos / "labels.csv").write_text(text.replace("smiling", "happy"))
    assert digest(keep_label=True) != before[0]


def test_a_table_alone_and_an_archive_are_datasets(voting_bundle: Bundle, photos: Path):
    found, facts = read(voting_bundle, photos / "labels.csv")
    assert len(found) == 5 and facts.settings == {"keep_label": False, "aus_from": "prototype"}
    np.testing.assert_allclose(found.images([1]).mean(), 20 / 255, atol=0.01)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"aus_from": "readr"}, "`aus_from` must be one of photo, reader, prototype.* is reader"),
        ({"aus_from": "photo", "aus": {"AU6": 1.0}}, "`aus` and `aus_from` exclude each other"),
        ({"keep_label": True, "labels": ["sad"]}, "`labels` and `keep_label` exclude each other"),
        ({"keep_label": True, "count_accepted": True}, "`count_accepted` requests the labels"),
        ({"keep_label": 1}, "`keep_label` must be True or False, got 1"),
        ({"inversion": "exact"}, "`inversion` must be one of predictor-corrector, fixed-point"),
        ({"split": "val"}, "has no split 'val'"),
        ({"keep_label": True, "aus_from": "photo", "count": 3}, "make 2 different images"),
        ({"aus_from": "photo", "prompt": "a man"}, "With `prompt` and `aus_from` the images of"),
    ],
)
def test_what_does_not_fit_is_refused(
    voting_bundle: Bundle, photos: Path, settings: Mapping[str, Any], said: str
):
    given: dict[str, Any] = {"count": 1, "layout_from": photos, **settings}
    with pytest.raises(UserError, match=said):
        make_run(voting_bundle, **given)


@pytest.mark.parametrize("name", ["keep_label", "aus_from", "split", "inversion"])
def test_what_is_for_photos_needs_some(voting_bundle: Bundle, name: str):
    given: dict[str, Any] = {name: True if name == "keep_label" else "photo"}
    with pytest.raises(UserError, match=f"`{name}` is for photos; add `layout_from`"):
        make_run(voting_bundle, count=1, **given)


def test_a_bundle_without_a_reader_or_units_is_refused(tiny_bundle: Bundle, photos: Path):
    with pytest.raises(UserError, match="has no AU reader"):
        read(tiny_bundle, photos, aus_from="reader")
    with pytest.raises(UserError, match="is a model without action units"):
        read(replace(tiny_bundle, au_names=()), photos, aus_from="photo")


def test_a_dataset_with_a_test_split_is_refused(voting_bundle: Bundle, tmp_path: Path):
    put(tmp_path, train__sad__1=10, test__sad__2=20)
    with pytest.raises(UserError, match="choose the one to start from with `split`"):
        read(voting_bundle, tmp_path, keep_label=True)
    found, _ = read(voting_bundle, tmp_path, keep_label=True, split="train")
    assert found.names == ("train/sad/1.jpg",) and found.read_as == {"photo_split": "train"}


def test_no_usable_photo_is_refused(voting_bundle: Bundle, tmp_path: Path):
    Image.new("L", (9, 9)).save(tmp_path / "stray.png")
    with pytest.raises(UserError, match=r"has no photo that can be used \(stray.png: it has no"):
        read(voting_bundle, tmp_path, keep_label=True)
