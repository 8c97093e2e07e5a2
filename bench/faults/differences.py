"""What a dataset has lost, doubled or changed beside the same run that nothing disturbed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synfer_rt.data.writers import run_file
from synfer_rt.jobs.found_samples import SAMPLES, Fault
from synfer_rt.jobs.verify import faults, settings_of


@dataclass(frozen=True)
class Difference:
    """How a run differs from another of the same settings.

    So many images are `lost`, that is in the other alone, or `doubled`, that is there more than
    once or not in the other. `differing` bytes of the files differ, where a file that one of them
    lacks differs whole. `faults` are what `verify` finds, and files that only one of them has in
    its own folder.
    """

    lost: int
    doubled: int
    differing: int
    faults: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.differing or self.faults)


def difference(out: Path, whole: Path) -> Difference:
    """How the run in `out` differs from the undisturbed one in `whole`, which is sound."""
    found, wanted = indices(out), indices(whole)
    ours, theirs = files(out), files(whole)
    return Difference(
        (wanted - found).total(),
        (found - wanted).total(),
        sum(differing(ours.get(name, b""), theirs.get(name, b"")) for name in ours | theirs),
        tuple([*_faults(out), *_strays(out, whole)]),
    )


def indices(out: Path) -> Counter[int]:
    """How often each image is in the run in `out`."""
    settings = settings_of(out)
    samples = (found for found in SAMPLES[settings["format"]](out, settings))
    records = (sample.record for sample in samples if not isinstance(sample, Fault))
    return Counter(record["index"] for record in records if record is not None)


def files(out: Path) -> dict[str, bytes]:
    """The files of a dataset by name."""
    paths = [path for path in out.rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def differing(one: bytes, other: bytes) -> int:
    """The bytes that differ, and those of the longer that the shorter does not have."""
    if one == other:
        return 0
    shared = min(len(one), len(other))
    first, second = (np.frombuffer(data[:shared], np.uint8) for data in (one, other))
    return int(np.count_nonzero(first != second)) + max(len(one), len(other)) - shared


def _faults(out: Path) -> Iterator[str]:
    for fault in faults(out, settings_of(out)):
        yield f"{fault.place}: {fault.problem}"


def _strays(out: Path, whole: Path) -> Iterator[str]:
    names, known = ({path.name for path in run_file.folder(run).iterdir()} for run in (out, whole))
    for name in sorted(names ^ known):
        yield f"{name}: only the {'disturbed' if name in names else 'undisturbed'} run has it"
