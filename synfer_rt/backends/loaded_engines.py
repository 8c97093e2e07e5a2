"""A bundle's engines on one backend, and how many images each of them takes in one call."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterable
from functools import cached_property, partial

import numpy as np

from synfer_rt.backends.choice import choose
from synfer_rt.backends.engine import ONE_AT_A_TIME, BoundEngine, Buffer, Engine
from synfer_rt.backends.footprint import bytes_per_image, share
from synfer_rt.backends.memory import free_memory
from synfer_rt.backends.opening import batch_limits, open_engine
from synfer_rt.backends.placement import Placement, placement
from synfer_rt.backends.runtimes import TARGETS
from synfer_rt.backends.streams import at_once
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.cuda import keeps_interface
from synfer_rt.bundle.engine_specs import denoises
from synfer_rt.errors import UserError

LOG = logging.getLogger(__name__)
_FALLBACK = "onnxruntime-cpu"
"""The backend that computes in float32 everywhere."""
_POSITIONS_PER_CALL = 4096
"""Latent positions (height times width, summed over the images) in one call of an engine on a CPU.

More is no faster and takes more memory: synfer-mini, whose images have 256 positions, needs the
same time for an image in pieces of 16 and of 64.
"""
_MOST_BATCHES = 4
"""The batch sizes that get buffers and CUDA graphs as they come."""
_PIXELS_PER_CALL = 1 << 20
"""Image pixels in one call of an engine that decodes, encodes or classifies, if memory allows."""
_BYTES_PER_PIXEL = 4096
"""What a decoder of SD 1.5's size holds for each pixel: at its widest, 256 channels in float32 as a
layer's input, output, shortcut and workspace."""
_PIXELS_ON_A_GPU = 1 << 22
"""The same for decoding and encoding on a GPU, which 16 images of 512x512 pixels fill."""


class LoadedEngines:
    """The engines of `bundle` on one backend; `engines["denoiser"]` loads one on first use.

    `backend` is the name of the backend that was chosen, and `threads` the number of CPU threads of
    one call, by default every usable core. Raises UserError as `backends.choose` does.
    """

    def __init__(self, bundle: Bundle, backend: str = "auto", threads: int | None = None) -> None:
        self.bundle = bundle
        self.backend, _ = choose(backend, bundle)
        self.threads = threads
        self._loaded: dict[str, Engine] = {}
        self._most: dict[str, int] = {}
        self._buffers: dict[tuple[object, ...], Buffer] = {}
        self._batches: set[int] = set()
        if self.backend == "onnxruntime-cuda":
            self._tell_of_missing_cuda_engines()

    def __getitem__(self, name: str) -> Engine:
        """The engine `name`. Raises UserError as `backends.open_engine` does."""
        if name not in self._loaded:
            with ONE_AT_A_TIME:
                if name not in self._loaded:
                    self._loaded[name] = self._open(name)
        return self._loaded[name]

    def load(self, names: Iterable[str], rows: int | None = None) -> None:
        """Load several engines now, on a CPU at once, ready for pieces of `rows` images if given.

        Raises UserError when one does not load.
        """
        with ONE_AT_A_TIME:
            missing = [name for name in dict.fromkeys(names) if name not in self._loaded]
            opening = [partial(self._open, name, rows) for name in missing]
            on_cpu = self.backend.endswith("-cpu")
            opened = at_once(opening) if on_cpu else [call() for call in opening]
            self._loaded |= dict(zip(missing, opened, strict=True))

    def _open(self, name: str, rows: int | None = None) -> Engine:
        # The conditioner computes the distinct rows of a piece, which are not known here.
        rows = None if rows is None or name == "conditioner" else self.piece_size(rows, name)
        return open_engine(self.bundle, name, self.backend, self.threads, rows)

    def placements(self) -> dict[str, Placement]:
        """Where each engine that is loaded really runs."""
        return {name: placement(engine) for name, engine in self._loaded.items()}

    @cached_property
    def fallback(self) -> LoadedEngines | None:
        """The same engines in float32 on the CPU; None if these are they."""
        if self.backend == _FALLBACK:
            return None
        return LoadedEngines(self.bundle, _FALLBACK, self.threads)

    def piece_size(self, count: int, *names: str) -> int:
        """The size of the fewest equal pieces of `count` images that all these engines take.

        The last piece is padded, so that all have one shape. `count` is at least 1.
        """
        most = min(self._most_per_call(name) for name in names)
        least = max(batch_limits(self.bundle, name, self.backend)[0] for name in names)
        return max(math.ceil(count / math.ceil(count / most)), least)

    def bound(self, *names: str) -> dict[str, BoundEngine] | None:
        """The engines by name if all of them run from buffers to buffers, else None."""
        found: dict[str, BoundEngine] = {}
        for name in names:
            engine = self[name]
            if not isinstance(engine, BoundEngine):
                return None  # the others need not be loaded to know it
            found[name] = engine
        return found

    def buffer(self, name: str, shape: tuple[int, ...], dtype: str) -> Buffer:
        """The buffer `name` of this shape on the device of the bound engines; it begins as zeros.

        It is the same at every call, since CUDA graphs hold its address.
        """
        key = (name, shape, dtype)
        if key not in self._buffers:
            engine = next(e for e in self._loaded.values() if isinstance(e, BoundEngine))
            self._buffers[key] = engine.allocate(shape, dtype)
            self._buffers[key].fill(np.zeros(shape, dtype))
        return self._buffers[key]

    def bound_batch(self, count: int, *names: str) -> int:
        """The batch, `count` or more, for which bound engines take a piece of `count` images.

        Each batch has buffers and CUDA graphs of its own, so there are few: the first sizes are
        kept as they are. A later one is filled up to one that is kept, or to a power of two.
        """
        if count not in self._batches and len(self._batches) >= _MOST_BATCHES:
            most = min(self._most_per_call(name) for name in names)
            power = max(min(1 << (count - 1).bit_length(), most), count)
            count = min([power, *(size for size in self._batches if size >= count)])
        self._batches.add(count)
        return count

    def run_in_pieces(self, name: str, key: str, array: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs [B, ...] of the engine `name` for its input `key`, a float `array` [B, ...].

        The batch goes through in pieces (see `piece_size`). Raises UserError for an array that is
        empty or of integers, and for an engine that the bundle lacks.
        """
        if array.dtype.kind != "f":  # a runtime may take 255 for a very bright pixel
            raise UserError(f"`{key}` must be float32, of images in [0, 1], got {array.dtype}.")
        if not len(array):
            raise UserError(f"`{key}` must be a batch of at least 1, got an empty one.")
        array = array.astype(np.float32, copy=False)
        engine = self[name]
        count, size = len(array), self.piece_size(len(array), name)
        pieces = [array[i : i + size] for i in range(0, count, size)]
        pieces[-1] = np.concatenate([pieces[-1], np.repeat(array[-1:], -count % size, 0)])
        outputs = [engine.run({key: piece}) for piece in pieces]
        return {k: np.concatenate([o[k] for o in outputs])[:count] for k in outputs[0]}

    def _tell_of_missing_cuda_engines(self) -> None:
        engines = self.bundle.engines
        missing = sorted(engines.keys() - self.bundle.cuda.keys())
        if not missing:
            return
        what = "so it runs slower"
        if all(keeps_interface(engines[name]) for name in missing):
            what = f"which run{'s' * (len(missing) == 1)} slower, outside CUDA graphs"
        LOG.info(
            f"{self.bundle.name} has no CUDA engine for {', '.join(missing)}, {what}; "
            "`synfer-rt build-engines --target cuda` makes CUDA engines."
        )

    def _most_per_call(self, name: str) -> int:
        """The most images for one call of an engine, found out once."""
        if name not in self._most:
            _, planned = batch_limits(self.bundle, name, self.backend)
            sizes = [sys.maxsize if planned is None else planned]
            sizes += self._fit_cpu(name) if self.backend.endswith("-cpu") else self._fit_gpu(name)
            self._most[name] = max(min(sizes), 1)
        return self._most[name]

    def _fit_cpu(self, name: str) -> list[int]:
        """How many images a call on a CPU should take at most, for several reasons."""
        pixels = math.prod(self.bundle.image_size)
        sizes = [_POSITIONS_PER_CALL // math.prod(self.bundle.latent.shape[1:])]
        if name != "conditioner" and not denoises(name):
            sizes.append(_PIXELS_PER_CALL // pixels)
            free = free_memory(self.backend)
            if free is not None:
                sizes.append(free // 2 // (_BYTES_PER_PIXEL * pixels))
        return sizes

    def _fit_gpu(self, name: str) -> list[int]:
        """How many images a call on a GPU should take at most, for several reasons."""
        spec, pixels = self.bundle.engines[name], math.prod(self.bundle.image_size)
        positions = math.prod(self.bundle.latent.shape[1:])
        sizes: list[int] = []
        if name in ("decoder", "encoder"):
            sizes.append(_PIXELS_ON_A_GPU // pixels)
        if self._free is not None:
            half, fused = self._arithmetic(name)
            each = bytes_per_image(spec, positions, pixels, half=half, fused=fused)
            sizes.append(int(share(name) * self._free / each))
        return sizes

    def _arithmetic(self, name: str) -> tuple[bool, bool]:
        """Whether an engine computes in float16 on a GPU, and whether its attention is fused."""
        made = self.bundle.plans.get(TARGETS.get(self.backend, ""), {}).get(name)
        if self.backend == "onnxruntime-cuda":
            made = self.bundle.cuda.get(name)
        if made is None:
            return False, False
        return made.precision == "fp16", not name.startswith("guide.")

    @cached_property
    def _free(self) -> int | None:
        """The free memory before engines take any of it."""
        return free_memory(self.backend)
