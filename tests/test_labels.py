"""Label schemes: orders differ, names do not."""

from __future__ import annotations

import numpy as np
import pytest

from synfer_rt import labels
from synfer_rt.errors import UserError

AFFECTNET = labels.scheme("affectnet-8")


def test_schemes_have_the_orders_of_their_datasets() -> None:
    assert AFFECTNET.index("contempt") == 7
    assert labels.scheme("affectnet-7") == AFFECTNET[:7]
    assert labels.scheme("raf-db")[0] == "surprise"
    assert labels.scheme("fer2013-csv")[4:] == ("sad", "surprise", "neutral")
    assert labels.scheme("fer2013-folders")[4:] == ("neutral", "sad", "surprise")
    assert labels.scheme("ferplus")[2] == "surprise"
    assert labels.scheme("hsemotion-8")[1] == "contempt"


def test_every_scheme_uses_the_canonical_names() -> None:
    for names in labels.SCHEMES.values():
        assert set(names) <= set(AFFECTNET)
        assert len(set(names)) == len(names)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UserError, match="known are affectnet-8"):
        labels.scheme("ck+")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", AFFECTNET),
        ("sad,happy", ("sad", "happy")),
        (" Happy , SAD ", ("happy", "sad")),
        ("happiness,angry,fearful", ("happy", "anger", "fear")),
        ("happy,,", ("happy",)),
        (["happy", " Sadness"], ("happy", "sad")),
        (("all",), AFFECTNET),
    ],
)
def test_labels_are_read(text: str | list[str], expected: tuple[str, ...]) -> None:
    assert labels.parse_labels(text, AFFECTNET) == expected


def test_an_unknown_label_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="'suprise'; the nearest of this model is surprise"):
        labels.parse_labels("happy,suprise", AFFECTNET)


def test_a_label_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="Unknown label 'contempt'"):
        labels.parse_labels("contempt", labels.scheme("affectnet-7"))


@pytest.mark.parametrize("text", ["happy,happy", "sad,happiness,happy", ["fear", "fearful"]])
def test_a_label_given_twice_is_refused(text: str | list[str]) -> None:
    with pytest.raises(UserError, match=r"The label (happy|fear) is given twice"):
        labels.parse_labels(text, AFFECTNET)


@pytest.mark.parametrize("text", ["", " ", ",,"])
def test_no_label_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="No label given"):
        labels.parse_labels(text, AFFECTNET)


def test_probabilities_are_reordered_by_name() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(8), 5).astype(np.float32)
    converted = labels.convert(rows, "hsemotion-8", "affectnet-8")
    for i, name in enumerate(AFFECTNET):
        source = labels.scheme("hsemotion-8").index(name)
        np.testing.assert_allclose(converted[:, i], rows[:, source], rtol=1e-6)
    back = labels.convert(converted, "affectnet-8", "hsemotion-8")
    np.testing.assert_allclose(back, rows, rtol=1e-6)


def test_a_class_that_the_target_lacks_is_dropped_and_the_rest_renormalised() -> None:
    row = np.full(8, 0.1)
    row[AFFECTNET.index("contempt")] = 0.3
    np.testing.assert_allclose(labels.convert(row, "affectnet-8", "affectnet-7"), np.full(7, 1 / 7))


def test_a_class_that_the_source_lacks_gets_nothing() -> None:
    converted = labels.convert(np.full(7, 1 / 7), "raf-db", "affectnet-8")
    assert converted[AFFECTNET.index("contempt")] == 0
    assert converted.sum() == pytest.approx(1)


def test_a_row_without_shared_mass_becomes_uniform() -> None:
    row = np.eye(8)[AFFECTNET.index("contempt")]
    np.testing.assert_allclose(labels.convert(row, "affectnet-8", "raf-db"), np.full(7, 1 / 7))
