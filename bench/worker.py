"""A system in an environment of its own: a process of another Python that this one talks to."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from synfer_rt.backends.caches import cache_home
from synfer_rt.bench import flops
from synfer_rt.bench.compared import FOREIGN, RELEASE
from synfer_rt.bench.peers import scheduler_of
from synfer_rt.bench.systems import SHOWN, Compared, Setup, Stopwatch, System, requests_of
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.diffusion import noise
from synfer_rt.errors import UserError
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.sampling.steps import plan

_SERVE = Path(__file__).parent / "workers" / "serve.py"


class Worker:
    """A process that answers requests as bench/workers/serve.py says."""

    def __init__(self, python: str, module: str, threads: int) -> None:
        # The environment's own packages alone, and nothing from a hub.
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        self._folder = TemporaryDirectory(prefix="synfer-rt-bench-")
        self._said = Path(self._folder.name, "said.txt")
        self._process = subprocess.Popen(
            [python, str(_SERVE), module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said.open("wb"),
            cwd=self._folder.name,
            env={**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)},
            text=True,
            encoding="utf-8",
        )
        self.peak_rss_bytes: int | None = None

    def ask(self, do: str, **given: Any) -> Any:
        """The answer. Raises UserError for a problem, and if the process has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, "with": given}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            lines = self._said.read_text(errors="replace").strip().splitlines()
            raise UserError(
                f"its process ended (exit code {self._process.wait()}); a negative code means most "
                f"likely that memory ran out. It said last: {lines[-1] if lines else 'nothing'}"
            )
        answer = json.loads(line)
        if "problem" in answer:
            raise UserError(answer["problem"])
        self.peak_rss_bytes = answer["peak_rss_bytes"]
        return answer["is"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()


def load(setup: Setup, name: str, compared: Compared) -> System:
    """The system `name`, in the environment that `compared` says."""
    kind = ReleasePeer if compared.worker == RELEASE else ForeignPeer
    return kind(setup, name, compared)


class ForeignPeer(System):
    """A peer of compared.FOREIGN, on the checkpoint of the bundle. See `systems.System`."""

    def __init__(self, setup: Setup, name: str, compared: Compared) -> None:
        self.bundle = setup.open()
        self._requests = requests_of(self.bundle)
        peer = FOREIGN[name]
        scheduler, config = scheduler_of(setup, self.bundle)
        given = {
            "library": name,
            "versions": compared.versions,
            "checkpoint": str(setup.checkpoint),
            "converted": str(_converted(setup, "optimum-intel" if peer.converted else name)),
            "threads": setup.threads,
            "scheduler": {"name": scheduler, "config": config},
        }
        if compared.converter is not None:
            _convert(compared.converter, given)
        self._worker = Worker(compared.python, compared.worker, setup.threads)
        told = self._worker.ask("load", **given)
        self.ran: Mapping[str, str] = told["ran"]
        notes: list[str] = told["notes"]
        self._alike = SHOWN if told["alike"] is None else int(told["alike"])
        if self.bundle.au_names:
            self._alike = 0
            notes.append(
                "runs without the AU adapter, which it cannot load: it does less, and its images "
                "are others"
            )
        self.notes: Sequence[str] = notes

    def run(self, batch: int, batches: int, steps: int, watch: Stopwatch, out: Path) -> None:
        """Write the samples that synfer-rt makes, as PNG files named by their indices."""
        requests = self._requests[: batch * batches]
        shape = self.bundle.latent.shape
        start = out / "start.npy"
        np.save(start, np.stack([noise.normal(r.seed, r.index, shape) for r in requests]))
        stages = self._worker.ask(
            "run",
            prompts=[request.prompt for request in requests],
            negative_prompts=[request.negative_prompt for request in requests],
            start=str(start),
            batch=batch,
            steps=steps,
            guidance=float(requests[0].guidance),
            seed=int(requests[0].seed),
            out=str(out),
        )
        watch.stages.update(stages)
        count = batch * batches
        watch.rows.update(conditioner=count, denoiser=count * steps, decoder=count)

    def images(self, out: Path) -> np.ndarray:
        """The first images that were written and have the requests of synfer-rt's."""
        from PIL import Image

        files = sorted(out.glob("*.png"))[: self._alike]
        height, width = self.bundle.image_size
        none = np.zeros((0, height, width, 3), np.uint8)
        return np.stack([np.asarray(Image.open(file)) for file in files]) if files else none

    def peak_rss_bytes(self) -> int | None:
        """The most memory that the peer's process had."""
        return self._worker.peak_rss_bytes

    def close(self) -> None:
        """End the peer's process."""
        self._worker.close()


def _convert(python: str, given: Mapping[str, Any]) -> None:
    """Have optimum-intel convert the checkpoint, unless it has."""
    if Path(given["converted"]).is_dir():
        return
    worker = Worker(python, FOREIGN["optimum-intel"].module, given["threads"])
    try:
        versions = FOREIGN["optimum-intel"].environment.versions
        worker.ask("load", **{**given, "library": "optimum-intel", "versions": versions})
    finally:
        worker.close()


def _converted(setup: Setup, library: str) -> Path:
    """Where what `library` makes of the checkpoint is kept: one place for each of its releases."""
    requirements = FOREIGN[library].environment
    content = repr((setup.open().bundle_hash, requirements.requirements, requirements.alone))
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    folder = cache_home() / "bench" / f"{library}-converted-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder


class ReleasePeer(System):
    """Another release of synfer-rt, which runs `sample` with its own bundle and defaults.

    Its calls of engines are counted as this release would call those of its bundle.
    """

    def __init__(self, setup: Setup, name: str, compared: Compared) -> None:
        self._worker = Worker(compared.python, compared.worker, setup.threads)
        told = self._worker.ask("load", versions=compared.versions, threads=setup.threads)
        self.ran: Mapping[str, str] = told["ran"]
        self.notes: Sequence[str] = told["notes"]
        self._bundle = open_bundle(told["bundle"])
        self._calls = _calls(self._bundle)

    def run(self, batch: int, batches: int, steps: int, watch: Stopwatch, out: Path) -> None:
        """Write as many images in the release's own steps, whatever `steps` says."""
        made = self._worker.ask("run", count=batch * batches, batch=batch, out=str(out))
        watch.total = made["total"]
        watch.stages.update(made["stages"])
        watch.rows.update({name: n * batch * batches for name, n in self._calls.items()})

    def images(self, out: Path) -> np.ndarray:
        """None, since the release has its own defaults."""
        return np.zeros((0, *self._bundle.image_size, 3), np.uint8)

    def flops(self) -> Mapping[str, int]:
        """Those of the engines of its own bundle."""
        return flops.of_engines(self._bundle)

    def peak_rss_bytes(self) -> int | None:
        """The most memory that the release's process had."""
        return self._worker.peak_rss_bytes

    def close(self) -> None:
        """End the release's process."""
        self._worker.close()


def _calls(bundle: Bundle) -> Counter[str]:
    """How often `sample` calls each engine of the model for an image, by default."""
    run = make_run(bundle, count=1)
    guidance = np.array([run.requests.guidance], np.float32)
    steps = plan(bundle, run.trajectory, guidance)
    return Counter(["conditioner", *(step.engine for step in steps), "decoder"])
