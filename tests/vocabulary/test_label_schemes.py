"""Label schemes: orders differ, names do not."""

from __future__ import annotations

import numpy as np
import pytest

from synfer_rt.errors import UserError
from synfer_rt.vocabulary import label_schemes

AFFECTNET = label_schemes.scheme("affectnet-8")


def test_schemes_have_the_orders_of_their_datasets() -> None:
    assert AFFECTNET.index("contempt") == 7
    assert label_schemes.scheme("affectnet-7") == AFFECTNET[:7]
    assert label_schemes.scheme("raf-db")[0] == "surprise"
    assert label_schemes.scheme("fer2013-csv")[4:] == ("sad", "surprise", "neutral")
    assert label_schemes.scheme("fer2013-folders")[4:] == ("neutral", "sad", "surprise")
    assert label_schemes.scheme("ferplus")[2] == "surprise"
    assert label_schemes.scheme("hsemotion-8")[1] == "contempt"


def test_every_scheme_uses_the_canonical_names() -> None:
    for names in label_schemes.SCHEMES.values():
        assert set(names) <= set(AFFECTNET)
        assert len(set(names)) == len(names)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UserError, match="known are affectnet-8"):
        label_schemes.scheme("ck+")


def test_probabilities_are_reordered_by_name() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(8), 5).astype(np.float32)
    converted = label_schemes.convert(rows, "hsemotion-8", "affectnet-8")
    for i, name in enumerate(AFFECTNET):
        source = label_schemes.scheme("hsemotion-8").index(name)
        np.testing.assert_allclose(converted[:, i], rows[:, source], rtol=1e-6)
    back = label_schemes.convert(converted, "affectnet-8", "hsemotion-8")
    np.testing.assert_allclose(back, rows, rtol=1e-6)


def test_a_class_that_the_target_lacks_is_dropped_and_the_rest_renormalised() -> None:
    row = np.full(8, 0.1)
    row[AFFECTNET.index("contempt")] = 0.3
    np.testing.assert_allclose(
        label_schemes.convert(row, "affectnet-8", "affectnet-7"), np.full(7, 1 / 7)
    )


def test_a_class_that_the_source_lacks_gets_nothing() -> None:
    converted = label_schemes.convert(np.full(7, 1 / 7), "raf-db", "affectnet-8")
    assert converted[AFFECTNET.index("contempt")] == 0
    assert converted.sum() == pytest.approx(1)


def test_a_row_without_shared_mass_becomes_uniform() -> None:
    row = np.eye(8)[AFFECTNET.index("contempt")]
    np.testing.assert_allclose(
        label_schemes.convert(row, "affectnet-8", "raf-db"), np.full(7, 1 / 7)
    )
