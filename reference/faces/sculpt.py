"""Face units that the CC0 sets lack, sculpted as smooth displacement fields on the rest pose.

ARKit's ``browDown`` hardly lowers the brows and does not draw them together, although this is what
makes anger legible; its units that raise the brows are too weak for surprise. Its ``cheekSquint``
does not bulge the cheek under the eye, ``mouthStretch`` lowers the corners of the mouth more than
it draws them apart, and no unit lifts the outer brow alone.
"""

from __future__ import annotations

import numpy as np


def _bump(p: np.ndarray, centre: tuple[float, float], radius: tuple[float, float]) -> np.ndarray:
    """Gaussian weight [n, 1] around a frontal point, zero on the back of the head."""
    d = ((p[:, :2] - centre) / radius) ** 2
    return (np.exp(-d.sum(1)) * np.clip((p[:, 2] - 0.6) / 0.4, 0, 1))[:, None].astype(np.float32)


def units(base: np.ndarray) -> dict[str, np.ndarray]:
    """Sculpted units for rest positions `base` [n, 3]: name -> offsets [n, 3] in decimetres."""
    out = {}
    for side, s in (("left", 1.0), ("right", -1.0)):
        mirror = np.array([s, 1.0, 1.0], np.float32)
        own_half = np.clip(0.5 + s * base[:, :1] / 0.2, 0, 1)
        inner = _bump(base, (s * 0.17, 7.49), (0.16, 0.12)) * own_half
        middle = _bump(base, (s * 0.36, 7.50), (0.20, 0.11)) * own_half
        brow = _bump(base, (s * 0.32, 7.54), (0.33, 0.14)) * own_half
        inner_tip = _bump(base, (s * 0.14, 7.52), (0.13, 0.13)) * own_half
        out[f"sculpt:corrugator-{side}"] = inner * mirror * np.array(
            [-0.026, -0.085, 0.024], np.float32
        ) + middle * mirror * np.array([-0.018, -0.052, 0.018], np.float32)
        out[f"sculpt:brow-raise-{side}"] = brow * np.array([0, 0.085, 0.0], np.float32)
        out[f"sculpt:brow-oblique-{side}"] = (
            inner_tip * mirror * np.array([-0.02, 0.075, 0.01], np.float32)
        )
        outer = _bump(base, (s * 0.46, 7.53), (0.17, 0.15)) * own_half
        out[f"sculpt:brow-outer-{side}"] = outer * np.array([0, 0.085, 0.0], np.float32)
        # The infraorbital triangle: up under the eye and out, towards the lower lid.
        cheek = _bump(base, (s * 0.40, 6.98), (0.19, 0.13)) * own_half
        bag = _bump(base, (s * 0.35, 7.12), (0.18, 0.055)) * own_half
        out[f"sculpt:cheek-raise-{side}"] = cheek * np.array(
            [0, 0.055, 0.045], np.float32
        ) + bag * np.array([0, 0.035, 0.012], np.float32)
        # Risorius: straight out and a little back, around the arch of the teeth.
        corner = _bump(base, (s * 0.27, 6.60), (0.17, 0.13)) * own_half
        out[f"sculpt:lip-stretch-{side}"] = (
            corner * mirror * np.array([0.065, -0.008, -0.03], np.float32)
        )
    return out
