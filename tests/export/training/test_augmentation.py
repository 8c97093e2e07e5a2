"""Augmentation: draws belong to an image."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs synfer-rt[export]")
import torch

from synfer_rt.export.training.augmentation import as_input, augmented, generators, mirrored


def test_an_image_s_draws_do_not_depend_on_its_batch() -> None:
    images = as_input(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8))
    together = augmented(images, generators(3, np.arange(5)))
    alone = augmented(images[2:3], generators(3, np.array([2])))
    torch.testing.assert_close(together[2:3], alone, rtol=0, atol=0)
    other = augmented(images[2:3], generators(4, np.array([2])))
    assert (other - alone).abs().max() > 0.05


def test_pixels_go_from_minus_one_to_one() -> None:
    pixels = np.array([[[[0, 255, 51]]]], np.uint8)
    torch.testing.assert_close(as_input(pixels).flatten(), torch.tensor([-1.0, 1.0, -0.6]))


def test_chosen_images_are_mirrored() -> None:
    x = torch.arange(8.0).reshape(2, 1, 2, 2)
    found = mirrored(x, np.array([False, True]))
    assert found.flatten().tolist() == [0, 1, 2, 3, 5, 4, 7, 6]
