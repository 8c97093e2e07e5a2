"""A whole benchmark: what is measured is settled and checked, then measured and written."""

from __future__ import annotations

import json as json_format
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from synfer_rt import ranges
from synfer_rt.backends import choose, default_threads
from synfer_rt.bench import machine, measure, report, summary
from synfer_rt.bench.peers import PACKAGES, PEERS, check_packages, check_weights
from synfer_rt.bench.systems import Case, Setup
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.data.writers.atomic import write_whole
from synfer_rt.errors import UserError, nearest
from synfer_rt.jobs.diagnosis import RUNTIMES

FORMAT = 1
"""Of the JSON that a benchmark is written as."""

MOST_THREADS = 1024
_PACKAGES = ("synfer-rt", "numpy", *RUNTIMES)


@dataclass(frozen=True)
class _Settled:
    """What is measured, with every default filled in."""

    bundle: Bundle
    setup: Setup
    cases: tuple[Case, ...]
    batches: tuple[int, ...]
    repeats: int
    peers: tuple[str, ...]


def bench(
    bundle: str | Path | None = None,
    *,
    batch: Sequence[int] = (1, 8, 64, 256),
    steps: int | None = None,
    solver: str | None = None,
    backend: str | Sequence[str] = "auto",
    threads: int | None = None,
    repeats: int = 3,
    compare: Sequence[str] = (),
    checkpoint: str | Path | None = None,
    json: str | Path | None = None,
    markdown: str | Path | None = None,
    progress: Callable[[int, int, Case], None] = lambda number, count, case: None,
    remark: Callable[[str], None] = lambda sentence: None,
    show: Callable[[Mapping[str, Any]], None] = lambda result: None,
    command: str = "synfer_rt.bench.bench",
) -> dict[str, Any]:
    """Measure throughput, time per stage and memory of a bundle, alone and against other systems.

    `bundle` is a directory, None for the bundle that ships with the package. Each of `batch` is a
    number of images made at once. `steps` and `solver` are the bundle's own unless given. The first
    `backend` is the one that is measured, further ones are compared with it, as are the systems
    that `compare` names (keys of peers.PEERS), which load `checkpoint`, the diffusers directory
    that the bundle was built from, by default the bundle unpacked. `threads` are CPU threads of
    each engine, None for all cores. Every system is visited at each batch `repeats` times, in turn,
    each time in a fresh process.

    Returns the result as JSON values: `machine`, `settings`, `visits` (every number), `summary`
    (medians), `speedups` and `differences`. It is written to the file `json`, and as a page to the
    file `markdown`, where these are given.

    `progress(number, count, case)` is called before each visit, `remark` with a sentence on each
    backend, and `show` with the result before anything is written; `command` is what the result
    says it was made by. Raises UserError, before anything is measured, for an argument that cannot
    be used.
    """
    files = {"json": json, "markdown": markdown}
    targets = {name: Path(file) for name, file in files.items() if file is not None}
    for name, file in targets.items():
        _check_writable(name, file)
    with TemporaryDirectory() as folder:
        settled = _settle(
            *(bundle, batch, steps, solver, backend, threads, repeats, compare, checkpoint, remark),
            folder=Path(folder),
        )
        visits, images = measure.measure(settled.setup, settled.cases, settled.repeats, progress)
    result = {
        "format": FORMAT,
        "machine": machine.describe(settled.setup.threads, _packages(settled.peers)),
        "settings": _described(settled, command),
        "visits": visits,
        **summary.summary_of(visits, images),
    }
    show(result)
    for name, file in targets.items():
        text = report.page(result) if name == "markdown" else json_format.dumps(result, indent=1)
        _write(name, file, text.rstrip("\n") + "\n")
    return result


def _settle(
    bundle: str | Path | None,
    batch: Sequence[int],
    steps: int | None,
    solver: str | None,
    backend: str | Sequence[str],
    threads: int | None,
    repeats: int,
    compare: Sequence[str],
    checkpoint: str | Path | None,
    remark: Callable[[str], None],
    folder: Path,
) -> _Settled:
    """The arguments of `bench` with their defaults; UserError for what cannot be measured.

    `folder` is for the checkpoint of the bundle, unpacked if peers need it.
    """
    batches = tuple(dict.fromkeys(_at_least_1("batch", size) for size in batch))
    if not batches:
        raise UserError("`batch` must name at least one size, such as 8.")
    repeats = _at_least_1("repeats", repeats)
    threads = default_threads() if threads is None else _at_least_1("threads", threads)
    if threads > MOST_THREADS:
        raise UserError(f"`threads` must be at most {MOST_THREADS}, got {threads}.")
    opened = open_bundle(bundle)
    solver = solver or opened.defaults.solver
    steps = opened.defaults.steps if steps is None else steps
    opened.trajectory(solver, steps, 1.0)  # refuses what does not fit
    names = [backend] if isinstance(backend, str) else backend
    chosen = [choose(name, opened) for name in names]
    for _, why in chosen:
        remark(f"Backend: {why}")
    first, *rivals = dict.fromkeys(name for name, _ in chosen)
    peers = tuple(dict.fromkeys(compare))
    loaded = _checkpoint(opened, None if checkpoint is None else Path(checkpoint), peers, folder)
    setup = Setup(opened.path, solver, steps, first, threads, loaded)
    systems = ("synfer-rt", *rivals, *peers)
    cases = tuple(Case(system, size) for size in batches for system in systems)
    return _Settled(opened, setup, cases, batches, repeats, peers)


def _at_least_1(argument: str, value: Any) -> int:
    if not ranges.is_whole(value, 1):
        raise UserError(f"`{argument}` must be a whole number of at least 1, got {value!r}.")
    return int(value)


def _described(settled: _Settled, command: str) -> dict[str, Any]:
    """The `settings` of the result."""
    bundle, setup = settled.bundle, settled.setup
    return {
        "command": command,
        "bundle": f"{bundle.name} {bundle.version}",
        "bundle_hash": bundle.bundle_hash,
        "solver": setup.solver,
        "steps": setup.steps,
        "guidance": ranges.guidance(bundle.defaults.guidance),
        "backend": setup.backend,
        "threads": setup.threads,
        "batches": list(settled.batches),
        "repeats": settled.repeats,
        "peers": list(settled.peers),
        "warm_up_steps": min(setup.steps, measure.WARM_UP_STEPS),
    }


def _checkpoint(
    bundle: Bundle, given: Path | None, peers: Sequence[str], folder: Path
) -> Path | None:
    """The checkpoint that peers load: the one given, or `bundle` unpacked into `folder`.

    None without peers.
    """
    for peer in peers:
        if peer not in PEERS:
            raise UserError(
                f"`compare` has the unknown system {peer!r}; the nearest is {nearest(peer, PEERS)}."
            )
    if not peers:
        if given is not None:
            raise UserError('`checkpoint` is what a peer loads; add `compare="diffusers"`.')
        return None
    for peer in peers:
        check_packages(peer)
    if given is None:
        return _unpacked(bundle, folder)
    if not (given / "model_index.json").is_file():
        raise UserError(
            f"{given} is no checkpoint; give the directory that {bundle.name} was built from as "
            "`checkpoint`."
        )
    check_weights(given, bundle)
    return given


def _unpacked(bundle: Bundle, folder: Path) -> Path:
    from synfer_rt.export.build.unpack import unpack

    try:
        unpack(bundle, folder / "checkpoint")
    except UserError as error:
        raise UserError(f"{error} Or give its checkpoint as `checkpoint`.") from None
    return folder / "checkpoint"


def _packages(peers: Sequence[str]) -> list[str]:
    return [*_PACKAGES, *(package for peer in peers for package in PACKAGES[peer])]


def _check_writable(argument: str, file: Path) -> None:
    """A benchmark takes minutes: refuse a file that cannot be written before, not after."""
    try:
        device = file.exists() and not file.is_file()  # or a pipe, which is written as it is
        writable = not file.is_dir() and os.access(file if device else file.parent, os.W_OK)
    except OSError:  # such as a name that is too long
        writable = False
    if not writable:
        raise UserError(
            f"{file} cannot be written; give `{argument}` a file in a directory that exists and "
            "is yours."
        )


def _write(argument: str, file: Path, text: str) -> None:
    try:
        if file.exists() and not file.is_file():  # such as /dev/stdout
            file.write_bytes(text.encode())
        else:
            write_whole(file, text.encode())
    except OSError as error:
        raise UserError(
            f"{file} cannot be written ({error.strerror}); give `{argument}` another file."
        ) from None
