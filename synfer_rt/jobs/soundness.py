"""Whether a run's images come out sound, or break so often that all are in doubt."""

from __future__ import annotations

import numpy as np

from synfer_rt.backends.computation import computation
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.errors import UserError

_FIRST = 1000
"""The images that are watched: the first of each call, so those of a resumed run anew."""
_SHARE = 0.01
"""The largest part of them that may be broken. A sound model breaks none in many thousands."""
_FEW = 3
"""So many broken images stop no run: they may be an accident, and are soon made again."""
_FALLBACK = "onnxruntime-cpu"


class Soundness:
    """Watches the first images of a run that `engines` make, before broken ones are made again."""

    def __init__(self, engines: LoadedEngines) -> None:
        self._engines = engines
        self._images = self._broken = 0

    def judge(self, sound: np.ndarray) -> None:
        """Count the next images, bool [B], which say whether each is finite and not flat.

        Raises UserError when too many of the first images are broken for an accident: more than
        three, and more than 1 %.
        """
        if self._images >= _FIRST:
            return
        self._images += len(sound)
        self._broken += int(np.count_nonzero(~sound))
        if self._broken > max(_FEW, _SHARE * self._images):
            raise UserError(self._sentence())

    def _sentence(self) -> str:
        engines = self._engines
        where = computation(engines.bundle, engines.backend)
        return (
            f"{self._broken} of the first {self._images} images are broken (flat or not finite), "
            f"too many for an accident: {engines.bundle.name} on {where.backend}, the denoiser in "
            f"{where.precision}; {_remedy(where.backend, where.precision)}. Images that are "
            "written already stay."
        )


def _remedy(backend: str, precision: str) -> str:
    settings = "lower `guidance` or `au_scale`, or raise `steps`"
    if backend == _FALLBACK:
        return f"{settings}, or check the engines with `synfer-rt verify-engines`"
    build = "" if precision == "fp32" else ", or build the bundle with `--precision fp32`"
    return f'try `backend="{_FALLBACK}"`{build}; if they are broken there too, {settings}'
