"""Which images are held out."""

from __future__ import annotations

import numpy as np

from synfer_rt.export.training.held_out import every_other, hold_out


def test_a_tenth_of_each_class_is_held_out_whatever_the_order() -> None:
    classes = np.repeat([0, 1, 2], [30, 20, 11])
    groups = [f"image {i}" for i in range(len(classes))]
    held = hold_out(classes, groups)
    assert np.bincount(classes[held]).tolist() == [3, 2, 2]
    order = np.random.default_rng(0).permutation(len(classes))
    again = hold_out(classes[order], [groups[i] for i in order])
    assert (again == held[order]).all()


def test_persons_are_whole_and_every_class_is_held_out() -> None:
    draw = np.random.default_rng(1)
    persons = [f"S{i:03d}" for i in draw.integers(0, 40, 600)]
    classes = draw.integers(0, 5, 600)
    held = hold_out(classes, persons)
    seen = {person for person, out in zip(persons, held, strict=True) if out}
    assert all((person in seen) == out for person, out in zip(persons, held, strict=True))
    assert (np.bincount(classes[held]) >= 0.1 * np.bincount(classes)).all()
    assert held.mean() < 0.25


def test_every_other_group_is_half_of_them() -> None:
    groups = [f"person {i % 9}" for i in range(90)]
    chosen = every_other(groups)
    assert len({g for g, out in zip(groups, chosen, strict=True) if out}) == 4
    assert chosen.sum() == 40
