"""Whether a run's images come out sound, or break so often that all are in doubt."""

from __future__ import annotations

import numpy as np

from synfer_rt.backends.computation import computation
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.errors import UserError

_FIRST = 1000
"""The images that are watched: the first of each call, so those of a resumed run anew."""
SAMPLED, DRAWN = 0.01, 0.5
"""The largest parts of them that may be broken: of samples, of which a sound model breaks none in
many thousands, and of images that are drawn around others, which may be blank themselves."""
_FEW = 3
"""So many broken images stop no run: they may be an accident, and are soon made again."""
_FALLBACK = "onnxruntime-cpu"


class Soundness:
    """Watches the first images of a run that `engines` make, before broken ones are made again.

    `share` is the largest part of them that may be broken, SAMPLED or DRAWN.
    """

    def __init__(self, engines: LoadedEngines, share: float = SAMPLED) -> None:
        self._engines, self._share = engines, share
        self._images = self._broken = 0

    def judge(self, sound: np.ndarray) -> None:
        """Count the next images, bool [B], which say whether each is finite and not flat.

        Raises UserError when too many of the first images are broken for an accident: more than
        three, and more than their share.
        """
        if self._images >= _FIRST:
            return
        self._images += len(sound)
        self._broken += int(np.count_nonzero(~sound))
        if self._broken > max(_FEW, self._share * self._images):
            raise UserError(self._sentence())

    def _sentence(self) -> str:
        engines = self._engines
        where = computation(engines.bundle, engines.backend)
        return (
            f"{self._broken} of the first {self._images} images are broken (flat or not finite), "
            f"too many for an accident: {engines.bundle.name} on {where.backend}, the denoiser in "
            f"{where.precision}; {self._remedy(where.backend, where.precision)}. Images that are "
            "written already stay."
        )

    def _remedy(self, backend: str, precision: str) -> str:
        cause = "lower `guidance` or `au_scale`, or raise `steps`"
        if self._share == DRAWN:
            cause = "look at the images that they are drawn from"
        if backend == _FALLBACK:
            return f"{cause}, or check the engines with `synfer-rt verify-engines`"
        build = ""
        if backend == "onnxruntime-cuda" and precision == "fp16":
            build = ", or build the bundle without `--target cuda`"  # which means float32
        elif "tensorrt" in backend and precision == "fp16":
            build = ", or build the bundle with `--precision fp32`"
        return f'try `backend="{_FALLBACK}"`{build}; if they are broken there too, {cause}'
