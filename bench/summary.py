"""What visits add up to: medians and extremes, speedups, and differences between images."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from synfer_rt.bench.flops import of_stages
from synfer_rt.bench.systems import MODEL_STAGES, STAGES

Record = Mapping[str, Any]


def summary_of(
    visits: Sequence[Record],
    images: Mapping[str, np.ndarray],
    flops: Mapping[str, int] | None,
) -> dict[str, Any]:
    """The `summary`, `speedups` and `differences` of a benchmark's result.

    `visits`, `images` and `flops` are those of measure.Measured.
    """
    summary = summarise(visits, flops)
    return {
        "summary": summary,
        "speedups": speedups(summary),
        "differences": differences(images),
    }


def summarise(
    visits: Iterable[Record], flops: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """One entry per system and batch, in order of first visit: medians over its visits.

    A visit counts once, by the median of its runs; extremes are those of all runs. Times are
    seconds per batch; `images_per_second` is of whole runs, `model_images_per_second` of
    MODEL_STAGES alone; `engine_share` is the part of a run that is spent in engine calls, None for
    systems without engines; `device` is the device's own time, with the clock that measured it.
    `flops` are those for an image by stage, from the `flops` of the engines and the calls of each,
    and `flops_per_second` is what MODEL_STAGES achieve; both are None if an engine was not counted.
    Memory is the largest of any visit; what a GPU did is the median.
    """
    by_case: dict[tuple[str, int], list[Record]] = {}
    for record in visits:
        by_case.setdefault((record["system"], record["batch"]), []).append(record)
    return [_entry(*case, records, flops) for case, records in by_case.items()]


def _entry(
    system: str, batch: int, records: Sequence[Record], flops: Mapping[str, int] | None
) -> dict[str, Any]:
    visited = [record["runs"] for record in records]

    def spread(of_run: Callable[[Record], float]) -> dict[str, float]:
        return _spread([of_run(run) for run in runs] for runs in visited)

    def of_model(run: Record) -> float:
        """Images per second of MODEL_STAGES."""
        return run["batches"] * batch / sum(run["stages"][stage] for stage in MODEL_STAGES)

    first = visited[0][0]
    counted = records[0]["flops"] or flops
    work = None if not counted or not first["calls"] else of_stages(counted, first["calls"])
    told = any(first["stages"][stage] for stage in MODEL_STAGES)
    done = spread(of_model if told else lambda run: run["batches"] * batch / run["total"])
    clock = first["device_clock"]
    return {
        "system": system,
        "settings": records[0]["settings"],
        "batch": batch,
        "ran": records[0]["ran"],
        "notes": list(dict.fromkeys(note for record in records for note in record["notes"])),
        "runs": sum(map(len, visited)),
        "batches": sum(run["batches"] for runs in visited for run in runs),
        "seconds": spread(lambda run: run["total"] / run["batches"]),
        "stages": {
            stage: spread(lambda run, stage=stage: run["stages"][stage] / run["batches"])
            for stage in STAGES
        },
        "images_per_second": spread(lambda run: run["batches"] * batch / run["total"]),
        "model_images_per_second": done if told else None,
        "engine_share": (
            spread(lambda run: sum(run["engines"].values()) / run["total"])
            if first["engines"]
            else None
        ),
        "device": (
            None
            if clock is None
            else {"clock": clock, **spread(lambda run: run["device_seconds"] / run["batches"])}
        ),
        "flops": work,
        "flops_per_second": None if work is None else sum(work.values()) * done["median"],
        "load_seconds": _spread([record["load_seconds"]] for record in records),
        "warm_up_seconds": _spread([record["warm_up_seconds"]] for record in records),
        "peak_rss_bytes": _largest(record["peak_rss_bytes"] for record in records),
        "gpu": _gpu([record["gpu"] for record in records if record["gpu"] is not None]),
    }


def _gpu(told: Sequence[Record]) -> dict[str, Any] | None:
    if not told:
        return None
    medians = {
        key: statistics.median(known) if (known := _known(one[key] for one in told)) else None
        for key in ("busy", "watts", "joules_per_image")
    }
    memory = _largest(one["memory_bytes"] for one in told)
    return {**medians, "memory_bytes": memory, "source": told[0]["source"]}


def speedups(summary: Sequence[Record]) -> list[dict[str, Any]]:
    """How many times as fast as each peer synfer-rt is at each batch: whole, and MODEL_STAGES.

    That holds for synfer-rt with each of its settings that was measured.
    """
    return [
        {
            "system": own["system"],
            "peer": entry["system"],
            "batch": entry["batch"],
            "whole": _ratio(own, entry, "images_per_second"),
            "model": _ratio(own, entry, "model_images_per_second"),
        }
        for entry in summary
        for own in summary
        if entry["settings"] is None and own["settings"] is not None
        if entry["batch"] == own["batch"]
    ]


def _ratio(ours: Record, theirs: Record, key: str) -> float | None:
    """None where one of them does not tell its stages."""
    if ours[key] is None or theirs[key] is None:
        return None
    return ours[key]["median"] / theirs[key]["median"]


def differences(images: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """How far each system's images are from synfer-rt's, in 8-bit levels.

    Both were asked for the same samples, so anything but rounding means that the systems did not
    do the same work.
    """
    if "synfer-rt" not in images:
        return []
    found = []
    for system, theirs in images.items():
        if system != "synfer-rt" and len(theirs):
            count = min(len(theirs), len(images["synfer-rt"]))
            own, other = (array[:count].astype(np.int16) for array in (images["synfer-rt"], theirs))
            found.append(
                {
                    "peer": system,
                    "images": count,
                    "mean": float(np.abs(own - other).mean()),
                    "max": int(np.abs(own - other).max()),
                }
            )
    return found


def _spread(visits: Iterable[Sequence[float]]) -> dict[str, float]:
    visits = list(visits)
    return {
        "median": statistics.median(map(statistics.median, visits)),
        "min": min(map(min, visits)),
        "max": max(map(max, visits)),
    }


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _largest(values: Iterable[int | None]) -> int | None:
    return max(_known(values), default=None)
