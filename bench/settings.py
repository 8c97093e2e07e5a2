"""What a benchmark measures: its arguments, checked and with every default filled in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synfer_rt import ranges
from synfer_rt.backends import choose, thread_count
from synfer_rt.bench import measure
from synfer_rt.bench.compared import FOREIGN, RELEASE, compared, refusal
from synfer_rt.bench.peers import PEERS, SCHEDULERS, check_packages, check_weights
from synfer_rt.bench.runtime import run_of
from synfer_rt.bench.systems import Case, Compared, Setup
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.errors import UserError

_BATCHES = (1, 8, 64, 256)
_REPEATS = 3
_MOST_SECONDS = 7 * 24 * 3600
_QUICK_SECONDS = 270.0
_QUICK_REPEATS = 2
"""Rounds that a quick benchmark makes if its time allows."""
_QUICK_BATCHES = {"gpu": (1, 64, 256), "cpu": (1, 16)}
_QUICK_PEERS = {"gpu": ("diffusers-fp16", "diffusers-fp16-compiled"), "cpu": ("diffusers",)}


@dataclass(frozen=True)
class Given:
    """What `benchmark.bench` is asked to measure; None stands for a default.

    `bundle` is a directory, None for the bundle that ships with the package. `quick` takes fewer
    sizes, runs all sizes of a system in one process, and takes diffusers as a peer if it is
    installed. `seconds` limits the whole benchmark, by default to 270 if it is quick; what no time
    is left for is left out. Each of `batch` is a number of images made at once, by default 1, 8, 64
    and 256. `steps`, `solver` and `size` (H, W) are the bundle's own unless given. The first
    `backend` is the one that is measured, further ones are compared with it, as are the systems
    that `compare` names (see compared.compared). These load `checkpoint`, the diffusers directory
    that the bundle was built from, by default the bundle unpacked; `set_up` makes the environments
    that they lack. Each of `variants` are settings of `sample` with which synfer-rt is measured as
    well (see runtime.run_of). `threads` are CPU threads of each engine, None for all cores.
    `repeats` (3) are the visits to each system and batch.
    """

    bundle: str | Path | None
    quick: bool
    seconds: float | None
    batch: Sequence[int] | None
    steps: int | None
    solver: str | None
    backend: str | Sequence[str]
    threads: int | None
    repeats: int | None
    compare: Sequence[str] | None
    checkpoint: str | Path | None
    set_up: bool = False
    size: tuple[int, int] | None = None
    variants: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Settled:
    """What is measured. `left_out` are the sections that are not, each with the reason."""

    bundle: Bundle
    setup: Setup
    cases: tuple[Case, ...]
    batches: tuple[int, ...]
    repeats: int
    seconds: float | None
    peers: tuple[str, ...]
    left_out: tuple[dict[str, str], ...]

    def described(self, command: str) -> dict[str, Any]:
        """The `settings` of the result."""
        bundle, setup = self.bundle, self.setup
        return {
            "command": command,
            "bundle": f"{bundle.name} {bundle.version}",
            "bundle_hash": bundle.bundle_hash,
            "solver": setup.solver,
            "steps": setup.steps,
            "size": list(setup.open().image_size),
            "guidance": ranges.guidance(bundle.defaults.guidance),
            "backend": setup.backend,
            "threads": setup.threads,
            "batches": list(self.batches),
            "repeats": self.repeats,
            "seconds": self.seconds,
            "peers": list(self.peers),
            "systems": list(dict.fromkeys(case.system for case in self.cases)),
            "warm_up_steps": min(setup.steps, measure.WARM_UP_STEPS),
        }


def settle(given: Given, remark: Callable[[str], None], folder: Path) -> Settled:
    """Check what was given and fill in the defaults; UserError for what cannot be measured.

    `folder` is for the checkpoint of the bundle, unpacked if peers need it. `remark` is called with
    a sentence on each backend.
    """
    seconds = _QUICK_SECONDS if given.seconds is None and given.quick else given.seconds
    if seconds is not None:
        seconds = ranges.real("seconds", seconds, 1, _MOST_SECONDS)
    repeats = _QUICK_REPEATS if given.quick else _REPEATS
    repeats = repeats if given.repeats is None else ranges.whole("repeats", given.repeats, 1, None)
    threads = thread_count(given.threads)
    bundle = open_bundle(given.bundle)
    solver = given.solver or bundle.defaults.solver
    steps = bundle.defaults.steps if given.steps is None else given.steps
    bundle = bundle if given.size is None else bundle.resized(given.size)
    way = run_of(bundle, 1, solver, steps, {}).trajectory  # refuses what does not fit
    variants = [_variant(bundle, solver, steps, settings) for settings in given.variants]
    names = [given.backend] if isinstance(given.backend, str) else given.backend
    chosen = [choose(name, bundle) for name in names]
    for _, why in chosen:
        remark(f"Backend: {why}")
    first, *rivals = dict.fromkeys(name for name, _ in chosen)
    device = "cpu" if first.endswith("-cpu") else "gpu"
    batches = _batches(given, device)
    noisy = solver if way.is_stochastic else None
    peers, loaded, left_out = _peers(given, device, bundle, solver, noisy, folder, remark)
    setup = Setup(bundle.path, solver, steps, first, threads, loaded, given.size)
    systems = [Case(name, batches) for name in ("synfer-rt", *rivals)]
    systems[1:1] = [replace(variant, batches=batches) for variant in variants]
    systems += [Case(name, batches, compared=where) for name, where in peers.items()]
    if given.quick:  # a process loads once for all sizes
        cases = tuple(systems)
    else:
        cases = tuple(replace(case, batches=(size,)) for size in batches for case in systems)
    return Settled(bundle, setup, cases, batches, repeats, seconds, tuple(peers), left_out)


def _batches(given: Given, device: str) -> tuple[int, ...]:
    if given.batch is None:
        return _QUICK_BATCHES[device] if given.quick else _BATCHES
    batches = tuple(dict.fromkeys(ranges.whole("batch", size, 1, None) for size in given.batch))
    if not batches:
        raise UserError("`batch` must name at least one size, such as 8.")
    return batches


Peers = dict[str, Compared | None]
"""Systems to compare with by the names that results call them, and where they run."""
LeftOut = tuple[dict[str, str], ...]


def _peers(
    given: Given,
    device: str,
    bundle: Bundle,
    solver: str,
    noisy: str | None,
    folder: Path,
    remark: Callable[[str], None],
) -> tuple[Peers, Path | None, LeftOut]:
    """The peers, the checkpoint that they load, and what is left out.

    A quick benchmark takes the usual peers if they can be had; peers that are asked for must be.
    `noisy` is the solver if it adds fresh noise.
    """
    checkpoint = None if given.checkpoint is None else Path(given.checkpoint)
    if given.compare is None and given.quick:
        names = _QUICK_PEERS[device]
        try:
            loaded = checkpoint_of(bundle, checkpoint, names, folder, noisy)
        except UserError as error:
            left_out = {"section": ", ".join(names), "why": str(error).rstrip(".")}
            return {}, None, (left_out,)
        return dict.fromkeys(names), loaded, ()
    peers = dict(compared(name, given.set_up, remark) for name in given.compare or ())
    loaders = [name for name, where in peers.items() if where is None or where.worker != RELEASE]
    loaded = checkpoint_of(bundle, checkpoint, loaders, folder, noisy)
    unfit = {
        name: why
        for name in loaders
        if (why := _unfit(name, bundle, loaded, solver, device)) is not None
    }
    left_out = tuple({"section": name, "why": why} for name, why in unfit.items())
    return {k: v for k, v in peers.items() if k not in unfit}, loaded, left_out


def _unfit(
    name: str, bundle: Bundle, checkpoint: Path | None, solver: str, device: str
) -> str | None:
    """Why a peer that loads the checkpoint cannot be compared; None if it can."""
    assert checkpoint is not None
    if name in PEERS:
        return None if solver in SCHEDULERS else f"it is not compared with the solver {solver}"
    if device != "cpu":
        return "it is measured on the CPU alone; add `--backend onnxruntime-cpu`"
    config = json.loads((checkpoint / "unet" / "config.json").read_text())
    return refusal(name, bundle, config, solver)


def _variant(bundle: Bundle, solver: str, steps: int, settings: Mapping[str, Any]) -> Case:
    """synfer-rt with these settings of `sample`. Raises UserError for what cannot be run."""
    if not settings:
        raise UserError("`variants` must name a setting of `sample` each, such as steps=4.")
    try:
        run_of(bundle, 1, solver, steps, settings)
    except TypeError:
        raise UserError(
            f"`variants` has {', '.join(settings)}, which are not all settings of `sample`; "
            "`synfer-rt sample --help` lists them."
        ) from None
    said = ", ".join(f"{name}={_said(value)}" for name, value in settings.items())
    name = settings["quality"] if settings.keys() == {"quality"} else said
    return Case(f"synfer-rt {name}", (), tuple(settings.items()))


def _said(value: Any) -> str:
    return ":".join(map(str, value)) if isinstance(value, tuple) else str(value)


def checkpoint_of(
    bundle: Bundle,
    given: Path | None,
    peers: Sequence[str],
    folder: Path,
    noisy: str | None = None,
) -> Path | None:
    """The checkpoint that `peers` load: the one given, or `bundle` unpacked into `folder`.

    None without peers. `noisy` is the solver if it adds fresh noise. Raises UserError for that, for
    packages that are missing, and for a checkpoint that is not the bundle's.
    """
    if not peers:
        if given is not None:
            raise UserError('`checkpoint` is what a peer loads; add `compare="diffusers"`.')
        return None
    if noisy:
        raise UserError(
            f"{noisy} adds fresh noise, which no peer draws alike, so images cannot be compared; "
            "leave out `compare`, or give a `solver` without noise, such as ddim."
        )
    if any(peer not in FOREIGN for peer in peers):
        check_packages()
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
