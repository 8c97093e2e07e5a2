"""One engine: exported, compared with PyTorch, described for the manifest."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from synfer_rt.bundle.engine_specs import IMAGE_AXES
from synfer_rt.bundle.sizes import Size
from synfer_rt.export.build.entries import Built, finished, interface
from synfer_rt.export.build.log import LOG, build_log
from synfer_rt.export.build.staging import Staging, log_file
from synfer_rt.export.build.verify import Case, check, max_relative_error, references
from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.lora.merge import Lora
from synfer_rt.export.graphs.engine_graphs import engine_graph, guide_remarks, images_of
from synfer_rt.export.networks.cached_unet import check_depth
from synfer_rt.export.networks.classifier import ClassifierSource
from synfer_rt.export.networks.image_network import compose_network, reference_outputs
from synfer_rt.export.onnx.forward_graph import export_onnx, save, store_half
from synfer_rt.export.onnx.gradient_graph import export_gradient
from synfer_rt.export.peak_memory import peak_bytes, reset_peak

_EXAMPLE_BATCH = 2


@dataclass(frozen=True)
class Source:
    """What is built: the arguments of read_checkpoint, the depth of engines that cache features
    (cached_unet.py), and an ONNX file (guiding_onnx.py) or a folder that guides, if there are any.
    Unlike a Checkpoint it has no weights."""

    directory: Path
    au_adapter: Path | None = None
    classifiers: tuple[ClassifierSource, ...] = ()
    loras: tuple[Lora, ...] = ()
    resolution: Size | None = None
    sizes: tuple[int, int] | None = None
    few_step: str | None = None
    cache_depth: int | None = None
    guide: ClassifierSource | Path | None = None

    def read(self) -> Checkpoint:
        """Read the checkpoint; UserError for whatever is wrong with it."""
        checkpoint = read_checkpoint(
            self.directory,
            self.au_adapter,
            self.classifiers,
            loras=self.loras,
            resolution=self.resolution,
            sizes=self.sizes,
            few_step=self.few_step,
        )
        if self.guide is not None:
            checkpoint = checkpoint.guided_by(self.guide)
        remarks = (*checkpoint.remarks, *guide_remarks(checkpoint))
        if self.cache_depth is not None:
            check_depth(checkpoint.unet, self.cache_depth, free_sizes=self.sizes is not None)
        return replace(checkpoint, cache_depth=self.cache_depth, remarks=remarks)


@dataclass(frozen=True)
class Job:
    """An engine to build in `place`, in this process or another.

    `max_length` is the number of tokens of a prompt, `key` the engine's build key; `batches` are
    those at which it is verified.
    """

    source: Source
    place: Staging
    name: str
    precision: str
    tolerance: float
    max_length: int
    key: str
    batches: tuple[int, int]


def build_engine(job: Job) -> Built:
    """Build and verify an engine; its manifest entry is recorded in the staging directory.

    PyTorch's outputs are computed first, and the module is freed before a runtime loads the engine,
    so that both are never in memory. Raises UserError if the error is above the job's tolerance.
    """
    with build_log(log_file(job.place.out)):
        start = time.perf_counter()
        reset_peak()
        path = job.place.bundle / f"{job.name}.onnx"
        job.place.discard(job.name, path.name)
        LOG.info("%s: exporting in %s", job.name, job.precision)
        cases, extra = _export(job, path)
        gc.collect()  # the exporter's graphs refer to each other and to the weights
        LOG.info("%s: exported after %.1f s", job.name, time.perf_counter() - start)
        entry = {
            "file": path.name,
            "precision": job.precision,
            **interface(path),
            "parity": parity(job.name, path, cases, job.tolerance, job.batches),
            **extra,
            "build_key": job.key,
        }
        job.place.record(job.name, entry)
        built = finished(
            job.name, entry, job.place.bundle, time.perf_counter() - start, peak_bytes()
        )
        LOG.info("%s", built)
        return built


def _export(job: Job, path: Path) -> tuple[list[Case], dict[str, Any]]:
    """Write the engine and return its reference cases, and the rest of its manifest entry."""
    checkpoint = job.source.read()
    size, sizes = checkpoint.image_size, checkpoint.sizes
    other = sizes and sizes.other(size)
    network = checkpoint.networks.get(job.name)
    if network is not None:
        model = ir.from_proto(compose_network(network, IMAGE_AXES if sizes else size))
        RemoveUnusedNodesPass()(model)
        if job.precision == "fp16":
            store_half(model.graph)
        save(model, path)
        cases = references(partial(reference_outputs, network), images_of(size), job.batches, other)
        if isinstance(network, ClassifierSource):
            return cases, network.manifest_fields(checkpoint.settings.label_scheme)
        return cases, {}
    graph = engine_graph(checkpoint, job.name, job.max_length)
    cases = references(graph.reference or graph.module, graph.inputs, job.batches, other)
    # An axis of length 1, or as long as another, would be taken for a fixed one.
    small = sizes and (2 * sizes.multiple_of, 3 * sizes.multiple_of)
    export = (
        export_gradient
        if graph.gradient
        else partial(export_onnx, free_axes=checkpoint.free_axes, optional=graph.optional)
    )
    example = graph.inputs(_EXAMPLE_BATCH, small)
    export(graph.module, example, graph.outputs, graph.static, path, job.precision)
    scheme = graph.label_scheme
    return cases, {"label_scheme": scheme} if scheme else {}


def parity(
    name: str,
    path: Path,
    cases: list[Case],
    tolerance: float,
    batches: tuple[int, int],
) -> dict[str, Any]:
    """The manifest's `parity` of an engine; UserError if its error is above `tolerance`."""
    error = max_relative_error(path, cases)
    check(name, error, tolerance)
    return {"tolerance": tolerance, "max_relative_error": error, "batches": list(batches)}
