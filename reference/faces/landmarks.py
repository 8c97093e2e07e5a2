"""Where the five points of a rendered face lie in its image.

``python -m reference.faces.landmarks --count N --seed S`` prints their mean over N faces of the
dataset's kind, in shares of the frame: the template to which synfer-mini's images are aligned.
"""

from __future__ import annotations

import argparse

import numpy as np

from reference.faces import appearance, expressions, rig, scene
from reference.faces import head as head_model
from reference.faces.appearance import Identity
from reference.faces.geometry import Geometry, identity_vertices
from reference.faces.render import posed_units

_LIPS = 0
"""The channel of the model's masks that shows the lips."""


class Landmarks:
    """The head's vertices at the points, which are those of `face_template.POINTS`.

    An eye's point is the foremost of its eyeball, the nose's is the foremost of the face, and a
    mouth's corner is where the lips end.
    """

    def __init__(self) -> None:
        self._model = model = head_model.load()
        self._geometry = Geometry(model)
        rows, columns = model.masks.shape[:2]
        at = np.clip((model.uv * (columns, rows)).astype(int), 0, (columns - 1, rows - 1))
        lips = model.masks[at[:, 1], at[:, 0], _LIPS] > 127
        across = model.base[model.source, 0]
        skin = model.material == head_model.SKIN
        corners = [int(np.where(lips & skin, side * across, -np.inf).argmax()) for side in (-1, 1)]
        nose = int(np.where(skin, model.base[model.source, 2], -np.inf).argmax())
        eye = (len(self._geometry.rest) - len(model.source)) // 2
        eyes = [len(model.source), len(model.source) + eye]
        self._vertices = [*eyes, nose, *corners]

    def points(self, identity: Identity, aus: rig.Aus, pose: scene.Pose) -> np.ndarray:
        """The points (x, y) [5, 2] of a face as the renderer frames it, in shares of the frame."""
        vertices = identity_vertices(self._model, identity.shape)
        posed = self._geometry.pose(vertices, posed_units(identity, aus, pose.gaze), 0.0)
        camera = scene.align(pose, posed.eye_centres, posed.chin)
        places = np.column_stack([posed.positions[self._vertices], np.ones(len(self._vertices))])
        clip = places @ camera.head_to_clip.T
        return (clip[:, :2] / clip[:, 3:] * (1, -1) + 1) / 2


def sample_points(rng: np.random.Generator, count: int) -> np.ndarray:
    """The points [count, 5, 2] of faces of the dataset's kind: expressions in turn, any pose."""
    landmarks = Landmarks()
    classes = expressions.CLASSES
    return np.stack(
        [
            landmarks.points(
                appearance.sample_identity(rng),
                expressions.sample_expression(rng, classes[i % len(classes)]),
                scene.sample_pose(rng),
            )
            for i in range(count)
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the template of rendered faces.")
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = sample_points(np.random.default_rng(args.seed), args.count)
    for mean, spread in zip(found.mean(0), found.std(0), strict=True):
        print(f"[{mean[0]:.4f}, {mean[1]:.4f}]  standard deviation {spread[0]:.4f} {spread[1]:.4f}")
