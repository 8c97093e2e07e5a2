"""MTCNN (Zhang et al., arXiv 1604.02878), the detector of the extra `align`.

Three networks look at ever fewer boxes, ever more closely. P-Net sees every square of 12 pixels of
the picture at every size, R-Net the boxes that are left at 24 pixels, and O-Net at 48 pixels, where
it finds the points. Each takes RGB float32 [N, 3, h, w] from -1 to 1, says how far the corners of a
box have to move, in widths and heights of it, and how probable a face is: outputs [N, 4] and
[N, 2], of P-Net for each square. O-Net first says the points: five x, then five y, in shares of its
box.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synfer_rt.faces import similarity
from synfer_rt.faces.detection import Face, in_picture, open_network
from synfer_rt.faces.warp import warped

if TYPE_CHECKING:
    from PIL.Image import Image

FILES = ("pnet.onnx", "rnet.onnx", "onet.onnx")
_SMALLEST = 20
"""The smallest face in pixels; P-Net sees it as large as its own square."""
_STEP = 0.709
"""How much smaller P-Net sees the picture each time; about the square root of a half."""
_WINDOW, _STRIDE = 12, 2
"""The square that P-Net sees, and how far the next is away."""
_PROBABLE = (0.6, 0.7, 0.8)
"""How probable a face must be to each network."""
_OVERLAP = (0.5, 0.7, 0.7)
"""Of boxes that overlap more, the most probable stays."""
_MOST = 256
"""The most boxes that R-Net sees."""


class Mtcnn:
    """The detector in a folder with FILES. See `detection.FaceDetector`.

    Raises UserError if a file cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._networks = [open_network(folder / name) for name in FILES]
        content = b"".join((folder / name).read_bytes() for name in FILES)
        self.sha256 = hashlib.sha256(content).hexdigest()

    def __reduce__(self) -> tuple[type[Mtcnn], tuple[Path]]:
        return Mtcnn, (self._folder,)  # sessions do not travel to other processes

    def faces(self, image: Image, matrix: np.ndarray, side: int) -> list[Face]:
        """See `FaceDetector.faces`."""
        coarse, fine, last = self._networks
        seen = warped(image, matrix, (side, side))
        boxes, probable = _proposals(coarse, seen)
        boxes, probable = boxes[:_MOST], probable[:_MOST]
        if len(boxes):
            moves, probabilities = fine.run(None, {"input": _crops(seen, boxes, 24)})
            kept = _kept(boxes, probabilities[:, 1], 1)
            boxes = _square(_moved(boxes, moves)[kept])
        points = np.empty((0, 5, 2))
        if len(boxes):
            marks, moves, probabilities = last.run(None, {"input": _crops(seen, boxes, 48)})
            kept = _kept(boxes, probabilities[:, 1], 2)
            corners, sizes = boxes[kept, None, :2], boxes[kept, None, 2:] - boxes[kept, None, :2]
            points = corners + sizes * marks[kept].reshape(-1, 2, 5).transpose(0, 2, 1)
            boxes, probable = _moved(boxes, moves)[kept], probabilities[kept, 1]
        middles, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        rows = np.column_stack([probable[: len(boxes)], middles, sizes])
        return in_picture(rows.astype(np.float64), points.astype(np.float64), matrix)


def _proposals(network: Any, seen: Image) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of P-Net, squares float64 [N, 4], and how probable they are, most probable first.

    A box is left, top, right and bottom in pixels of the square picture.
    """
    from PIL import Image as pillow

    found, probable = [np.empty((0, 4))], [np.empty(0)]
    side = round(seen.width * _WINDOW / _SMALLEST)
    while side >= _WINDOW:
        level = seen.resize((side, side), pillow.Resampling.BILINEAR)
        moves, probabilities = network.run(None, {"input": _as_input([np.asarray(level)])})
        rows, columns = np.nonzero(probabilities[0, 1] > _PROBABLE[0])
        corner = np.column_stack([columns, rows]) * float(_STRIDE)
        boxes = np.hstack([corner, corner + _WINDOW]) * (seen.width / side)
        sure = probabilities[0, 1, rows, columns]
        kept = _apart(boxes, sure, _OVERLAP[0])
        found.append(_moved(boxes, moves[0][:, rows, columns].T)[kept])
        probable.append(sure[kept])
        side = round(side * _STEP)
    boxes, sure = np.concatenate(found), np.concatenate(probable)
    kept = _apart(boxes, sure, _OVERLAP[1])
    return _square(boxes[kept]), sure[kept]


def _kept(boxes: np.ndarray, probable: np.ndarray, network: int) -> np.ndarray:
    """The numbers of the boxes that a network takes for faces, the most probable first."""
    sure = np.flatnonzero(probable > _PROBABLE[network])
    return sure[_apart(boxes[sure], probable[sure], _OVERLAP[network])]


def _apart(boxes: np.ndarray, probable: np.ndarray, overlap: float) -> np.ndarray:
    """The numbers of boxes that no more probable one overlaps by more, the most probable first."""
    order = np.argsort(-probable, kind="stable")
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept: list[int] = []
    while len(order):
        first, order = int(order[0]), order[1:]
        kept.append(first)
        least = np.maximum(boxes[first, :2], boxes[order, :2])
        most = np.minimum(boxes[first, 2:], boxes[order, 2:])
        shared = np.clip(most - least, 0, None).prod(1)
        order = order[shared <= overlap * (area[first] + area[order] - shared)]
    return np.array(kept, int)


def _moved(boxes: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] whose corners have moved, by shares of their sizes."""
    return boxes + moves * np.tile(boxes[:, 2:] - boxes[:, :2], 2)


def _square(boxes: np.ndarray) -> np.ndarray:
    """Squares about the middles of boxes [N, 4], as long as their longer sides."""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True) / 2
    return np.hstack([middles - half, middles + half])


def _crops(seen: Image, boxes: np.ndarray, side: int) -> np.ndarray:
    """What a network of `side` sees of square boxes [N, 4]."""
    crops: list[np.ndarray] = []
    for left, top, right, _ in boxes.tolist():
        factor = max(right - left, 1.0) / side
        matrix = similarity.placed((left, top), factor, (0, 0))
        crops.append(np.asarray(warped(seen, matrix, (side, side))))
    return _as_input(crops)


def _as_input(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures uint8 [h, w, 3] as float32 [N, 3, h, w] from -1 to 1."""
    batch = np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray((batch - 127.5) / 128)
