"""The plans of a bundle: which engines TensorRT compiles, and which it has compiled before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.backends.caches import cache_home
from synfer_rt.errors import UserError
from synfer_rt.export.build.all_engines import Options, Recipe
from synfer_rt.export.build.entries import Built, Entry, finished
from synfer_rt.export.build.hashes import code_hash, digest
from synfer_rt.export.build.log import LOG
from synfer_rt.export.build.one_engine import Source
from synfer_rt.export.build.staging import log_file
from synfer_rt.export.graphs.engine_graphs import engine_graph, images_of
from synfer_rt.export.tensorrt.compile import PLAN_TARGETS, check_options, compile_plan

Plans = dict[str, dict[str, Entry]]
"""The manifest's `plans`: entries by target and engine."""

_CODE = ("tensorrt/compile.py", "tensorrt/mixed_precision.py")


@dataclass(frozen=True)
class _Missing:
    """A plan that is to be compiled, and its build key."""

    target: str
    engine: str
    key: str


def check_plan_options(options: Options) -> None:
    """Raise the UserError that compile_plan would, before anything long is begun."""
    for target in _targets(options):
        check_options(target, options.capabilities, options.batch, options.precision)


def make_plans(
    recipe: Recipe, engines: Mapping[str, Entry], report: Callable[[Built], None]
) -> Plans:
    """Compile every engine for every target of the recipe: the manifest's `plans`.

    A plan is reused when its engine, the library and the options are those of an earlier build.
    The entries lack `source_sha256`, since the files of the engines are not final yet. Raises
    UserError as `tensorrt.compile_plan` does.
    """
    plans, missing = _reuse(recipe, engines, report)
    if missing:
        _compile_all(recipe, engines, missing, plans, report)
    return plans


def _reuse(
    recipe: Recipe, engines: Mapping[str, Entry], report: Callable[[Built], None]
) -> tuple[Plans, list[_Missing]]:
    """The plans of an earlier build that can stay, and those that are missing."""
    place, options = recipe.place, recipe.options
    plans: Plans = {target: {} for target in _targets(options)}
    missing: list[_Missing] = []
    for target in plans:
        made_by = (
            target,
            import_module(PLAN_TARGETS[target]).__version__,
            tuple(check_options(target, options.capabilities, options.batch, options.precision)),
            options.batch,
            recipe.axes,
            code_hash(*_CODE),
        )
        old = (((place.old or {}).get("plans") or {}).get(target)) or {}
        for name, entry in engines.items():
            key = digest(made_by, entry["build_key"], _precision(name, entry))
            record = f"{target}.{name}"
            plan = place.recorded(record, key) or place.inherited(old.get(name), key)
            if plan is None:
                missing.append(_Missing(target, name, key))
                continue
            place.record(record, plan)
            plans[target][name] = plan
            report(finished(_title(target, name), plan, place.bundle, None))
    return plans, missing


def _compile_all(
    recipe: Recipe,
    engines: Mapping[str, Entry],
    missing: Sequence[_Missing],
    plans: Plans,
    report: Callable[[Built], None],
) -> None:
    """Compile the `missing` plans, several at once, and add them to `plans`."""
    half = {one.engine for one in missing if _precision(one.engine, engines[one.engine]) == "fp16"}
    examples = _examples(recipe.source, half, recipe.max_length)

    def compiled(one: _Missing) -> Entry:
        return _compile(recipe, engines[one.engine], one, examples.get(one.engine), report)

    # Each plan is built in a process of its own; the threads wait for them.
    with ThreadPoolExecutor(recipe.options.jobs) as pool:
        try:
            for one, plan in zip(missing, pool.map(compiled, missing), strict=True):
                plans[one.target][one.engine] = plan
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise


def _compile(
    recipe: Recipe,
    engine: Entry,
    missing: _Missing,
    example: Mapping[str, np.ndarray] | None,
    report: Callable[[Built], None],
) -> Entry:
    place, options = recipe.place, recipe.options
    LOG.info("%s: compiling for %s", missing.engine, missing.target)
    made = compile_plan(
        missing.engine,
        place.bundle / engine["file"],
        place.bundle,
        missing.target,
        options.capabilities,
        options.batch,
        _precision(missing.engine, engine),
        log_file(place.out),
        timing_cache=_timing_cache(),
        example=example,
        axes=recipe.axes,
    )
    plan = {**made.entry, "build_key": missing.key}
    place.record(f"{missing.target}.{missing.engine}", plan)
    title = _title(missing.target, missing.engine)
    report(finished(title, plan, place.bundle, made.seconds, made.peak_bytes))
    return plan


def _targets(options: Options) -> list[str]:
    return [target for target in PLAN_TARGETS if target in options.targets]


def _precision(engine: str, entry: Entry) -> str:
    """The precision that an engine's plan computes in.

    A guide's is fp32, because gradients are too small for float16, whose smallest number is 6e-8.
    """
    return "fp32" if engine.startswith("guide.") else entry["precision"]


def _timing_cache() -> Path:
    """The file of TensorRT's kernel timings on this machine, which all bundles share."""
    folder = cache_home() / "tensorrt"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "timing.cache"


def _title(target: str, engine: str) -> str:
    return f"{engine} ({target})"


def _examples(source: Source, names: set[str], max_length: int) -> dict[str, dict[str, np.ndarray]]:
    """Inputs of batch 1 for the engines `names`, by engine and input."""
    if not names:
        return {}
    checkpoint = source.read()
    examples: dict[str, Any] = {}
    for name in names:
        if name in checkpoint.networks:
            inputs = images_of(checkpoint.image_size)
        else:
            inputs = engine_graph(checkpoint, name, max_length).inputs
        examples[name] = {key: value.numpy() for key, value in inputs(1).items()}
    return examples
