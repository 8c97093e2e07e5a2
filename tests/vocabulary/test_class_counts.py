"""The class counts of published sets."""

from __future__ import annotations

from synfer_rt.vocabulary.class_counts import CLASS_COUNTS
from synfer_rt.vocabulary.label_schemes import SCHEMES


def test_the_counts_are_those_of_the_published_training_sets():
    totals = {name: sum(counts.values()) for name, counts in CLASS_COUNTS.items()}
    assert totals == {"affectnet-8": 287_651, "affectnet-7": 283_901, "raf-db": 12_271}


def test_a_set_has_the_classes_of_its_label_scheme():
    for name, counts in CLASS_COUNTS.items():
        assert tuple(counts) == SCHEMES[name]
