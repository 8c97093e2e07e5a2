"""What visits add up to: medians and extremes, speedups, and differences between images."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from synfer_rt.bench.systems import MODEL_STAGES, STAGES


def summary_of(
    visits: Sequence[Mapping[str, Any]], images: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The `summary`, `speedups` and `differences` of a benchmark's result.

    `visits` and `images` are what measure.measure returns.
    """
    summary = summarise(visits)
    return {
        "summary": summary,
        "speedups": speedups(summary),
        "differences": differences(images),
    }


def summarise(visits: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry per case, in order of first visit: median over its visits, extremes of its runs.

    A visit counts once, by the median of its runs, since fewer of them fit into a visit while the
    machine is slow. Times are seconds per batch; `images_per_second` is of whole runs,
    `model_images_per_second` of MODEL_STAGES alone; `engine_share` is the part of a run that is
    spent in engine calls, None for systems without engines; memory is the largest of any visit.
    """
    by_case: dict[tuple[str, int], list[Mapping[str, Any]]] = {}  # its visits
    for record in visits:
        by_case.setdefault((record["system"], record["batch"]), []).append(record)
    entries = []
    for (system, batch), records in by_case.items():
        visited = [record["runs"] for record in records]
        model = [[sum(r["stages"][s] for s in MODEL_STAGES) for r in runs] for runs in visited]
        engines = [[sum(r["engines"].values()) / r["total"] for r in runs] for runs in visited]
        entries.append(
            {
                "system": system,
                "batch": batch,
                "runs": sum(map(len, visited)),
                "seconds": _spread([r["total"] for r in runs] for runs in visited),
                "stages": {
                    stage: _spread([r["stages"][stage] for r in runs] for runs in visited)
                    for stage in STAGES
                },
                "images_per_second": _spread([batch / r["total"] for r in v] for v in visited),
                "model_images_per_second": _spread([batch / s for s in v] for v in model),
                "engine_share": _spread(engines) if visited[0][0]["engines"] else None,
                "load_seconds": _spread([record["load_seconds"]] for record in records),
                "warm_up_seconds": _spread([record["warm_up_seconds"]] for record in records),
                "peak_rss_bytes": _largest(records, "peak_rss_bytes"),
                "gpu_bytes": _largest(records, "gpu_bytes"),
            }
        )
    return entries


def speedups(summary: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many times faster synfer-rt is than each peer at each batch, on MODEL_STAGES."""
    medians = {
        (entry["system"], entry["batch"]): entry["model_images_per_second"]["median"]
        for entry in summary
    }
    return [
        {"peer": system, "batch": batch, "ratio": medians["synfer-rt", batch] / speed}
        for (system, batch), speed in medians.items()
        if system != "synfer-rt"
    ]


def differences(images: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """How far each peer's images are from synfer-rt's, in 8-bit levels.

    Both were asked for the same samples, so anything but rounding means that the systems did not
    do the same work.
    """
    own = images["synfer-rt"].astype(np.int16)
    return [
        {
            "peer": system,
            "images": len(own),
            "mean": float(np.abs(own - other).mean()),
            "max": int(np.abs(own - other).max()),
        }
        for system, other in images.items()
        if system != "synfer-rt"
    ]


def _spread(visits: Iterable[Sequence[float]]) -> dict[str, float]:
    visits = list(visits)
    return {
        "median": statistics.median(map(statistics.median, visits)),
        "min": min(map(min, visits)),
        "max": max(map(max, visits)),
    }


def _largest(records: Iterable[Mapping[str, Any]], key: str) -> int | None:
    known = [record[key] for record in records if record[key] is not None]
    return max(known, default=None)
