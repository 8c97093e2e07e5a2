"""The plans of a bundle: which engines TensorRT compiles, and which it did already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.backends.caches import cache_home
from synfer_rt.errors import UserError
from synfer_rt.export.build.all_engines import Options, Recipe
from synfer_rt.export.build.keys import code_hash, digest
from synfer_rt.export.build.log import LOG
from synfer_rt.export.build.one_engine import Built, Source, finished
from synfer_rt.export.build.staging import Entry, log_file
from synfer_rt.export.graphs.engine_graphs import engine_graph, images_of
from synfer_rt.export.tensorrt.compile import TARGETS, check_options, compile_plan

_CODE = ("tensorrt/compile.py", "tensorrt/mixed_precision.py")


def check_plan_options(options: Options) -> None:
    """Raise the UserError that compile_plan would, before anything long is begun."""
    for target in _targets(options):
        check_options(target, options.capabilities, options.batch, options.precision)


def make_plans(
    recipe: Recipe, engines: Mapping[str, Entry], report: Callable[[Built], None]
) -> dict[str, dict[str, Entry]]:
    """Compile every engine for every target asked for: the manifest's `plans`.

    A plan is reused when its engine, the library and the options are those of an earlier build.
    Each lacks `source_sha256`, since its engine's file is not final yet.
    Raises UserError as `tensorrt.compile_plan` does.
    """
    place, options, log = recipe.place, recipe.options, log_file(recipe.place.out)
    precisions = {name: _precision(name, entry) for name, entry in engines.items()}
    plans: dict[str, dict[str, Entry]] = {target: {} for target in _targets(options)}
    missing: list[tuple[str, str, str]] = []
    for target in plans:
        library = import_module(TARGETS[target]).__version__
        asked = (
            target,
            library,
            tuple(check_options(target, options.capabilities, options.batch, options.precision)),
            options.batch,
            recipe.axes,
            code_hash(*_CODE),
        )
        old = (((place.old or {}).get("plans") or {}).get(target)) or {}
        for name, entry in engines.items():
            key = digest(asked, entry["build_key"], precisions[name])
            record = f"{target}.{name}"
            plan = place.recorded(record, key) or place.inherited(old.get(name), key)
            if plan is None:
                missing.append((target, name, key))
            else:
                place.record(record, plan)
                plans[target][name] = plan
                report(finished(_title(target, name), plan, place.bundle, None))
    if not missing:
        return plans
    halves = {name for _, name, _ in missing if precisions[name] == "fp16"}
    examples = _examples(recipe.source, halves, recipe.max_length)

    def make(todo: tuple[str, str, str]) -> Entry:
        target, name, key = todo
        LOG.info("%s: compiling for %s", name, target)
        made = compile_plan(
            name,
            place.bundle / engines[name]["file"],
            place.bundle,
            target,
            options.capabilities,
            options.batch,
            precisions[name],
            log,
            timing_cache=_timing_cache(),
            example=examples.get(name),
            axes=recipe.axes,
        )
        plan = {**made.entry, "build_key": key}
        place.record(f"{target}.{name}", plan)
        title = _title(target, name)
        report(finished(title, plan, place.bundle, made.seconds, made.peak_bytes))
        return plan

    with ThreadPoolExecutor(options.jobs) as pool:  # each plan is built in a process of its own
        try:
            for (target, name, _), plan in zip(missing, pool.map(make, missing), strict=True):
                plans[target][name] = plan
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise
    return plans


def _targets(options: Options) -> list[str]:
    return [target for target in TARGETS if target in options.targets]


def _precision(engine: str, entry: Entry) -> str:
    """What its plan computes in: gradients are too small for float16, whose least is 6e-8."""
    return "fp32" if engine.startswith("guide.") else entry["precision"]


def _timing_cache() -> Path:
    """What TensorRT learnt of this machine's kernels serves every bundle."""
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
