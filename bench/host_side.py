"""The host side alone: everything of a run but its engines, which here return at once.

The engines' outputs are made beforehand, so what is measured is requests, noise, tokens, votes, PNG
files, records and the disk. `python -m synfer_rt.bench.host_side` prints a line for each format:
images per second, and the processor's time for an image by thread. Python runs one thread at a
time; only noise, compression and the disk go on beside it.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.data import pixels
from synfer_rt.data.writers import FORMATS, open_output
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.sample_settings import make_run

_PICTURES = 16
_SAMPLING, _DECODING = "sampling", "onnxruntime-cpu"


@dataclass(frozen=True)
class HostSide:
    """What a run of `images` took: `seconds` by the clock, and of processor time by thread.

    Threads of one kind count together: `sampling` calls the engines, `prepare` makes their inputs,
    `label` votes, `encode` and `write` write what was made, and `save` writes single files.
    """

    format: str
    images: int
    seconds: float
    threads: Mapping[str, float]

    def __str__(self) -> str:
        each = 1e6 / self.images
        parts = ", ".join(f"{name} {time * each:.0f}" for name, time in self.threads.items())
        total = sum(self.threads.values()) * each
        return (
            f"{self.format:12s} {self.images / self.seconds:6.0f} images/s; us of processor time "
            f"an image: {total:.0f} ({parts})"
        )


class InstantEngines(LoadedEngines):
    """Engines of `bundle` that take any batch and return what was computed before.

    They run from buffers to buffers, as those of a GPU do; the buffers lie in host memory.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, _DECODING)
        self.backend, self.fallback = "instant", None  # nothing is made again
        latents = bundle.layouts.latents[:_PICTURES]
        decoder = LoadedEngines(bundle, _DECODING)
        self._pictures = decoder.run_in_pieces("decoder", "latents", latents)["images"]
        self._made: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        self._held: dict[tuple[str, tuple[int, ...]], _HostBuffer] = {}

    def __getitem__(self, name: str) -> _InstantEngine:
        return _InstantEngine(self, name)

    def load(self, names: Iterable[str], rows: int | None = None) -> None:
        """Do nothing: there is nothing to load."""

    def piece_size(self, count: int, *names: str) -> int:
        """`count`: a batch is one piece."""
        return count

    def bound_batch(self, count: int, *names: str) -> int:
        """`count`, unpadded."""
        return count

    def buffer(self, name: str, shape: tuple[int, ...], dtype: str) -> _HostBuffer:
        """The same buffer at every call."""
        return self._held.setdefault((name, shape), _HostBuffer(np.zeros(shape, dtype)))

    def run_in_pieces(self, name: str, key: str, array: np.ndarray) -> dict[str, np.ndarray]:
        """What the engine says, whatever the array."""
        return self.outputs(name, len(array))

    def outputs(self, name: str, batch: int) -> dict[str, np.ndarray]:
        """What the engine `name` says of a batch."""
        if (name, batch) not in self._made:
            self._made[name, batch] = self._make(name, batch)
        return self._made[name, batch]

    def _make(self, name: str, batch: int) -> dict[str, np.ndarray]:
        if name == "decoder":
            images = self._pictures[np.arange(batch) % len(self._pictures)]
            finished = pixels.in_8_bits(images)
            return {"images": images, "pixels": finished, "sound": pixels.sound(images)}
        draw = np.random.default_rng(0)
        outputs: dict[str, np.ndarray] = {}
        for tensor in self.bundle.engines[name].outputs:
            shape = (batch, *(x if isinstance(x, int) else 1 for x in tensor.shape[1:]))
            values = draw.random(shape, np.float32)
            if tensor.name == "probabilities":
                values /= values.sum(1, keepdims=True)
            outputs[tensor.name] = values
        return outputs


class _HostBuffer:
    """A buffer that is an array."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.finished = False

    def fill(self, array: np.ndarray) -> None:
        self.array[...] = array

    def numpy(self) -> np.ndarray:
        return self.array.copy()

    def rows(self, first: int, count: int) -> _HostBuffer:
        return _HostBuffer(self.array[first : first + count])


class _InstantEngine:
    def __init__(self, engines: InstantEngines, name: str) -> None:
        self._engines, self._name = engines, name
        self.spec, self.backend = engines.bundle.engines[name], engines.backend

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        batch = max(len(array) for array in inputs.values() if array.ndim)
        return self._engines.outputs(self._name, batch)

    run_on_device = run

    def allocate(self, shape: tuple[int, ...], dtype: str) -> _HostBuffer:
        return _HostBuffer(np.zeros(shape, dtype))

    def enqueue(
        self,
        inputs: Mapping[str, _HostBuffer],
        outputs: Mapping[str, _HostBuffer],
        *,
        wait: bool = False,
    ) -> None:
        for name, buffer in outputs.items():
            if buffer.shape and not buffer.finished:  # later ones are the same
                buffer.fill(self._engines.outputs(self._name, buffer.shape[0])[name])
                buffer.finished = True


def measure(run: Run, engines: InstantEngines, format: str, batch: int) -> HostSide:
    """Write the run into a temporary folder, and take the time."""
    with tempfile.TemporaryDirectory() as folder:
        writer = open_output(Path(folder) / "out", run.settings(format), resume=False)
        with _threads_timed() as threads:
            started = time.perf_counter()
            execute(run, engines, writer, batch)
            seconds = time.perf_counter() - started
    return HostSide(format, run.count, seconds, threads)


@contextmanager
def _threads_timed() -> Generator[dict[str, float]]:
    """The processor time of this thread and of those that end in the block, by their pools."""
    spent: dict[str, float] = defaultdict(float)
    run = threading.Thread.run

    def counted(self: threading.Thread) -> None:
        try:
            run(self)
        finally:
            spent[self.name.rpartition("_")[0] or self.name] += time.thread_time()

    threading.Thread.run = counted
    started = time.thread_time()
    try:
        yield spent
    finally:
        threading.Thread.run = run
        spent[_SAMPLING] += time.thread_time() - started


@click.command()
@click.option("--count", default=2048, show_default=True, help="Images of each run.")
@click.option("--batch", default=256, show_default=True, help="Images at once.")
@click.option("--repeats", default=1, show_default=True, help="Runs of each format, in turn.")
@click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True, default=FORMATS)
def main(count: int, batch: int, repeats: int, formats: tuple[str, ...]) -> None:
    """Measure the host side of the default bundle."""
    bundle = open_bundle()
    engines = InstantEngines(bundle)
    run = make_run(bundle, count=count)
    for format in formats:
        measure(make_run(bundle, count=batch), engines, format, batch)  # warms up
    for _ in range(repeats):
        for format in formats:
            click.echo(measure(run, engines, format, batch))


if __name__ == "__main__":
    main()
