"""What the frozen UNet says of images: the inputs of FERAnno's head, kept on disk as float16."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synfer_rt.errors import UserError
from synfer_rt.export.networks.feranno import FERAnno
from synfer_rt.export.networks.modules import Encoder
from synfer_rt.export.training import cache
from synfer_rt.export.training.augmentation import as_input, augmented, generators, mirrored
from synfer_rt.export.training.faces import Images
from synfer_rt.export.training.frozen import encoded, place_of
from synfer_rt.export.training.stages import Stage

_BYTES = 2  # of a float16


def shapes_of(annotator: FERAnno) -> list[list[tuple[int, ...]]]:
    """The shapes of one image's features, and of its cross-attention maps."""
    with torch.no_grad():
        kinds = annotator.read(torch.zeros(1, *annotator.latent, device=place_of(annotator)))
    return [[tuple(part.shape[1:]) for part in kind] for kind in kinds]


class Features:
    """The UNet's features and maps of augmented views of images, computed once.

    Number v * N + i is view v of row i of the N `rows`; a view has a folder of its own below
    `folder`. View v is augmented v + 1 times, so that the second is as poor as photographs from
    elsewhere. Images are mirrored by turns, so that two views hold both sides of a face.
    """

    def __init__(
        self,
        folder: Path,
        annotator: FERAnno,
        encoder: Encoder,
        images: Images,
        rows: np.ndarray,
        views: int,
        seed: int,
        at_once: int,
        stage: Stage,
    ) -> None:
        self._shapes = shapes_of(annotator)
        self._device, self._rows = place_of(annotator), rows

        @torch.no_grad()
        def read(view: int, numbers: np.ndarray) -> dict[str, np.ndarray]:
            batch = as_input(images(rows[numbers])).to(self._device)
            batch = mirrored(batch, (view + numbers) % 2 == 1)
            draws = generators(seed, view * len(rows) + numbers)
            for _ in range(view + 1):
                batch = augmented(batch, draws)
            features, maps = annotator.read(encoded(encoder, batch, draws))
            values = torch.cat([x.flatten(1) for x in (*features, *maps)], 1).half()
            if not values.isfinite().all():
                raise UserError(
                    "The features of this UNet are too large for float16, so FERAnno cannot be "
                    "trained on it."
                )
            return {"values": values.cpu().numpy()}

        self._views = [
            cache.rows(
                folder / f"view-{v}",
                len(rows),
                partial(read, v),
                at_once,
                f"reading features, view {v + 1} of {views}",
                stage,
            )["values"]
            for v in range(views)
        ]

    def __len__(self) -> int:
        return len(self._views) * len(self._rows)

    def __getitem__(self, numbers: np.ndarray) -> tuple[list[Tensor], list[Tensor]]:
        """Features and maps of these numbers, float32."""
        chosen = [self._views[n // len(self._rows)][n % len(self._rows)] for n in numbers]
        values, begin = torch.from_numpy(np.stack(chosen)).to(self._device).float(), 0
        kinds: list[list[Tensor]] = []
        for shapes in self._shapes:
            kinds.append([])
            for shape in shapes:
                end = begin + math.prod(shape)
                kinds[-1].append(values[:, begin:end].unflatten(1, shape))
                begin = end
        return kinds[0], kinds[1]


def check_room(folder: Path, annotator: FERAnno, count: int, views: int) -> str:
    """A sentence on the disk that the features of `views` of `count` images take.

    Raises UserError if they do not fit.
    """
    a_view = _BYTES * sum(math.prod(shape) for kind in shapes_of(annotator) for shape in kind)
    what = f"Features ({a_view / 1e6:.2f} MB a view, {views} views of {count} images)"
    left = [cache.done(folder / f"view-{v}") for v in range(views)]
    return cache.check_room(folder, views * count, sum(left), a_view, what)
