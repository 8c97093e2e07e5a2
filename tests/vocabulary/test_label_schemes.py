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


def test_every_scheme_uses_names_that_it_reads() -> None:
    for key, names in label_schemes.SCHEMES.items():
        assert len(set(names)) == len(names)
        assert label_schemes.scheme(label_schemes.listed(names)) == names
        own = label_schemes.own_classes(key)
        assert set(names) <= {*AFFECTNET, *own} and not {*AFFECTNET} & {*own}


def test_compound_expressions_have_the_order_of_raf_db() -> None:
    compound = label_schemes.scheme("raf-db-compound")
    assert compound[0] == "happily surprised" and compound[6] == "fearfully angry"
    assert len(compound) == 11 and compound[-1] == "disgustedly surprised"
    assert label_schemes.own_class("Happily_Surprised", compound) == "happily surprised"
    assert label_schemes.own_class("02 happily disgusted faces", compound) == "happily disgusted"
    assert label_schemes.own_class("happily", compound) is None


def test_emonet_face_has_forty_classes_of_which_five_are_expressions() -> None:
    classes = label_schemes.scheme("emonet-face")
    assert len(classes) == 40
    shared = label_schemes.reached("emonet-face", "affectnet-8")
    assert shared == ("sad", "fear", "disgust", "anger", "contempt")
    own = label_schemes.own_classes("emonet-face")
    for written in ("Pleasure/Ecstasy", "Jealousy & Envy", "Emotional Numbness"):
        assert label_schemes.own_class(written, own) in classes


def test_a_list_may_have_classes_of_its_own() -> None:
    assert label_schemes.scheme("Neutral,Bored,-,Deep_Thought") == (
        "neutral",
        "bored",
        "-",
        "deep thought",
    )


def test_a_name_in_quotes_is_no_spelling_of_an_expression() -> None:
    classes = label_schemes.scheme('happy,"joyful","Supprise"')
    assert classes == ("happy", "joyful", "supprise")
    assert label_schemes.listed(classes) == 'happy,"joyful","supprise"'
    with pytest.raises(UserError, match="put it in double quotes"):
        label_schemes.scheme("happy,supprise")


def test_a_mapping_gives_each_class_its_weights() -> None:
    mapping = {"bored": {"neutral": 1.0}, "awed": {"surprise": 0.75, "fear": 0.25}}
    source, target = "happy,bored,awed,lost", "affectnet-8"
    assert label_schemes.left_out(source, target, mapping) == ("lost",)
    reached = label_schemes.reached(source, target, mapping)
    assert reached == ("neutral", "happy", "surprise", "fear")
    row = np.array([[0.1, 0.2, 0.4, 0.3], [0, 0, 0, 1.0]])
    found = label_schemes.mapped(row, source, target, mapping)
    np.testing.assert_allclose(found[0] * 0.7, [0.2, 0.1, 0.3, 0.1])
    np.testing.assert_allclose(found[1], 0.25)


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


def test_a_number_in_a_class_of_its_own_is_part_of_its_name() -> None:
    classes = ("pain 1", "bored")
    assert label_schemes.own_class("Pain_1", classes) == "pain 1"
    assert label_schemes.own_class("pain 2", classes) is None
    assert label_schemes.own_class("3_bored", classes) == "bored"
