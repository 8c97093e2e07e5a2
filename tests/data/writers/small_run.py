"""A small run without a model: records and images that depend on the index alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from synfer_rt.data.writers import Writer, open_output, read
from synfer_rt.data.writers.shards import Part
from synfer_rt.records import Record

CLASSES = ["neutral", "happy", "sad"]


class SmallRun:
    """`count` samples of three classes, in shards of 4."""

    shard_size = 4

    def settings(self, format: str, count: int = 10) -> dict[str, Any]:
        """What the writers need to know."""
        return {
            "format": format,
            "count": count,
            "classes": CLASSES,
            "au_vocabulary": ["AU6", "AU12"],
            "seed": 7,
            "accept_rate": None,
        }

    def sample_settings(self, format: str, count: int = 10) -> dict[str, Any]:
        """All that `sample` writes into run.json."""
        return {
            **self.settings(format, count),
            "bundle": "0123abcd",
            "labels": CLASSES,
            "prompt": None,
            "negative_prompt": "",
            "aus": None,
            "quality": "best",
            "solver": "unipc",
            "steps": 8,
            "guidance": 2.0,
            "au_scale": 1.0,
            "layout": "bank",
            "photo_set": None,
            "layout_strength": 0.7,
            "semantic_guidance": None,
            "threshold": None,
            "accepted_per_class": None,
            "label_scheme": "affectnet-8",
            "model": {"name": "tiny", "version": "1.2", "licence": "CC-BY-4.0"},
        }

    def record(self, index: int) -> dict[str, Any]:
        """A record with every column."""
        label = CLASSES[index % 3]
        return {
            "index": index,
            "seed": 7,
            "requested_label": "happy" if index % 3 == 2 else label,
            "label": label,
            "label_scheme": "affectnet-8",
            "probabilities": {"neutral": 0.25, "happy": 0.5, "sad": 0.25},
            "rectified": index % 3 == 2,
            "accepted": label == "happy",
            "prompt": f"a photo of a woman, ünïcode {index}",
            "negative_prompt": "",
            "aus": {"AU6": 0.0, "AU12": 0.5 if label == "happy" else 0.0},
            "guidance": 2.0,
            "guidance_interval": {"low": 0.0, "high": 0.0},
            "au_scale": 1.0,
            "quality": "best",
            "solver": "unipc",
            "steps": 8,
            "timesteps": "",
            "eta": 0.0,
            "cache_every": 1,
            "layout": -1 if index % 2 else index,
            "layout_strength": 0.7,
            "semantic_guidance": {"form": "", "strength": 0.0, "start": 0.0, "every": 0},
            "origin": "sampled",
            "source": "",
            "source_sha256": "",
            "noise_scale": 0.0,
            "attempt": 0,
            "bundle": "0123abcd",
            "backend": "onnxruntime-cpu",
        }

    def image(self, index: int) -> np.ndarray:
        """uint8 [8, 8, 3], another one for each index."""
        return np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)

    def png(self, index: int) -> bytes:
        """The image's PNG file."""
        file = io.BytesIO()
        Image.fromarray(self.image(index)).save(file, "PNG")
        return file.getvalue()

    def write(self, writer: Writer, stop: int) -> None:
        """Write what lacks up to `stop`, in batches of 3 at most."""
        written = writer.done - (writer.count - len(writer.lacking))
        todo = [index for index in writer.lacking[written:] if index < stop]
        for first in range(0, len(todo), 3):
            batch = todo[first : first + 3]
            writer.write([self.record(i) for i in batch], [self.png(i) for i in batch])


def open_run(
    run: SmallRun,
    out: Path,
    format: str,
    count: int = 10,
    resume: bool = False,
    part: Part | None = None,
) -> Writer:
    """The writer of the run in `out`, or of a part of it."""
    settings = run.settings(format, count)
    return open_output(out, settings, resume=resume, shard_size=run.shard_size, part=part)


def finished(run: SmallRun, out: Path, format: str, count: int = 10) -> list[tuple[Record, bytes]]:
    """The samples of the run in `out`, which is begun or continued, and finished."""
    writer = open_run(run, out, format, count, resume=True)
    run.write(writer, count)
    writer.finish()
    return list(read(out))


def final_files(out: Path) -> list[Path]:
    """The files of an output that have their final names."""
    return sorted(p for p in out.rglob("*") if p.is_file() and p.suffix != ".partial")


def assert_complete(run: SmallRun, samples: list[tuple[Record, bytes]], count: int = 10) -> None:
    """Each of `count` indices is there once, with its image."""
    assert [record["index"] for record, _ in samples] == list(range(count))
    for record, png in samples:
        assert png == run.png(record["index"])
