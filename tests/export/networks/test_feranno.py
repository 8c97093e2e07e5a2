"""FERAnno's head: no map and no place is lost in it."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch

from synfer_rt.export.networks.feranno import AnnotatorHead, Branch


def test_details_within_a_cell_of_the_grid_are_not_averaged_away() -> None:
    torch.manual_seed(0)
    branch = Branch([(1, 4, 4), (1, 1, 1)], 8, (2, 2)).eval()
    flat, checked = torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 2.0], [2.0, 0.0]]).repeat(2, 2)
    one, other = (branch([x, torch.zeros(1, 1, 1, 1)]) for x in (flat, checked[None, None]))
    assert one.shape == (1, 4, 8) and (one - other).abs().max() > 1e-2


def test_a_coarser_map_reaches_every_token() -> None:
    torch.manual_seed(0)
    branch = Branch([(1, 4, 4), (1, 1, 1)], 8, (2, 2)).eval()
    one, other = (branch([torch.zeros(1, 1, 4, 4), x * torch.ones(1, 1, 1, 1)]) for x in (0, 1))
    assert (one - other).abs().amax(-1).min() > 1e-3


def test_the_head_tells_places_apart() -> None:
    torch.manual_seed(0)
    head = AnnotatorHead([(3, 2, 2)], [(3, 2, 2)], (2, 2), 5, 8).eval()
    features, maps = torch.randn(2, 1, 3, 2, 2)
    turned = head([features.flip(3)], [maps.flip(3)])
    assert (head([features], [maps]) - turned).abs().max() > 1e-3
