"""What ONNX Runtime's CUDA provider makes of a bundle's engines, on the fake CUDA runtime.

    gates.py ENGINES [--plain] [--most ENGINE=NODES …]

For each CUDA engine of the bundle (with `--plain` each engine as it is for CPUs): its nodes on the
CUDA provider and on the CPU provider, whether a CUDA graph is captured, what is in it, and the CUDA
calls of a replay. Exits 1 and names the gate if a CUDA engine has a node on the CPU provider, more
nodes than `--most` says, no CUDA graph, or a copy between host and device in it.

Structure and counts are real; values and times mean nothing. `run.py` calls this in an environment
of its own. A process ends with `os._exit`: ONNX Runtime frees kernels that there are not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from synfer_rt.backends.sessions import cuda_engine_options, open_session
from tests.fake_cuda.calls import Calls, counted

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
BACKEND = "onnxruntime-cuda"
BATCH = 4
REPLAYS = 3
_ERRORS_ONLY = 3
_NONE_AT_ALL = 4
_TYPES = {"float": "f4", "float16": "f2", "int64": "i8", "int32": "i4", "uint8": "u1", "bool": "?"}


@dataclass
class Report:
    """What was found out about one file."""

    engine: str
    on_cuda: int = 0
    on_cpu: Counter[str] = field(default_factory=Counter[str])
    captured: Counter[str] = field(default_factory=Counter[str])
    refused: str = ""
    """Why no CUDA graph was captured; empty if one was."""
    replay: Calls = field(default_factory=Calls)

    def line(self) -> str:
        """A row of the table."""
        on_cpu = ", ".join(f"{name} {n}" for name, n in self.on_cpu.most_common(4))
        graph = ", ".join(f"{name} {n}" for name, n in self.captured.items())
        if self.refused:
            graph = f"refused: {self.refused}"
        cells = (self.engine, self.on_cuda, f"{self.on_cpu.total()} {on_cpu}".strip(), graph)
        return "| " + " | ".join(map(str, cells)) + f" | {self.replay} |"

    def problems(self, most: int | None) -> list[str]:
        """The gates that a CUDA engine does not pass, each in a sentence."""
        found = []
        if self.on_cpu:
            found.append(f"{self.engine}: nodes on the CPU provider: {dict(self.on_cpu)}.")
        if most is not None and self.on_cuda > most:
            found.append(f"{self.engine}: {self.on_cuda} nodes, more than {most}.")
        if self.refused:
            found.append(f"{self.engine}: no CUDA graph: {self.refused}.")
        if copies := self.captured["upload"] + self.captured["download"]:
            found.append(f"{self.engine}: {copies} copies between host and device in its graph.")
        if self.replay.by_kind()["graph"] != 1 and not self.refused:
            found.append(f"{self.engine}: a replay is not one launch: {self.replay}.")
        return found


def session(file: Path, engine: str | None, graph: bool) -> onnxruntime.InferenceSession:
    """A session that would rather fail than fall back to another provider.

    It has the options of the CUDA engine called `engine`, or without one those of an engine that
    was not made for CUDA, and counts its nodes.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _NONE_AT_ALL if graph else _ERRORS_ONLY
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    cuda = {"enable_cuda_graph": str(int(graph)), "use_tf32": "0"}
    if engine is not None:
        cuda = cuda_engine_options(engine, graphs=graph)
    return onnxruntime.InferenceSession(
        file, options, providers=[(CUDA, cuda), CPU], enable_fallback=False
    )


def nodes(opened: onnxruntime.InferenceSession) -> Counter[tuple[str, str]]:
    """How many nodes of which operator each provider has: (provider, operator)."""
    return Counter(
        (part.ep_name, node.op_type)
        for part in opened.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    )


def on_device(node: Any, batch: int) -> onnxruntime.OrtValue:
    """Zeros in device memory for an input or output, named sizes being the batch."""
    shape = [size if isinstance(size, int) else batch for size in node.shape]
    kind = np.dtype(_TYPES[node.type.removeprefix("tensor(").removesuffix(")")])
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, kind), "cuda", 0)


def run_captured(opened: onnxruntime.InferenceSession, report: Report) -> None:
    """Capture a CUDA graph of a session on fixed addresses and replay it."""
    binding, options = opened.io_binding(), onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "1")
    kept = []
    for node in opened.get_inputs():
        kept.append(on_device(node, BATCH))
        binding.bind_ortvalue_input(node.name, kept[-1])
    for node in opened.get_outputs():
        kept.append(on_device(node, BATCH))
        binding.bind_ortvalue_output(node.name, kept[-1])
    for _ in range(REPLAYS):
        with counted() as report.replay:
            opened.run_with_iobinding(binding, options)
        report.captured += report.replay.captured_by_kind()
    if not report.captured:
        report.refused = "nothing was captured"


def why_refused(error: Exception, on_cpu: Counter[str]) -> str:
    """The part of an error of ONNX Runtime that says why it captures no CUDA graph."""
    text = str(error).splitlines()[0]
    if "have not been partitioned" not in text:
        return text[:160]
    # The copies are nodes as well, which ONNX Runtime adds after it has assigned the others.
    return "nodes on the CPU provider" if on_cpu else "copies to or from host memory"


def examine(engine: str, file: Path, plain: bool) -> Report:
    """Load a file, count its nodes, capture its CUDA graph in the session of a backend."""
    report, made_for_cuda = Report(engine), None if plain else engine
    for (provider, operator), number in nodes(session(file, made_for_cuda, False)).items():
        if provider == CUDA:
            report.on_cuda += number
        else:
            report.on_cpu[operator] += number
    try:
        if plain:
            captured = session(file, None, True)
        else:
            captured = open_session(file, BACKEND, 1, cuda_engine_options(engine, graphs=True))
        run_captured(captured, report)
    except Exception as error:  # the runtime's exceptions share no base class but this
        report.refused = why_refused(error, report.on_cpu)
    return report


def files(engines: Path, plain: bool) -> dict[str, Path]:
    """The files to look at, by engine: CUDA engines, or the engines for CPUs."""
    manifest = json.loads((engines / "bundle.json").read_text())
    specs = manifest["engines"] if plain else manifest.get("cuda", {})
    return {name: engines / spec["file"] for name, spec in specs.items()}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("engines", type=Path)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--most", action="append", default=[], metavar="ENGINE=NODES")
    given = parser.parse_args()
    most = {name: int(n) for name, n in (text.split("=") for text in given.most)}
    onnxruntime.set_default_logger_severity(_NONE_AT_ALL)

    found = files(given.engines, given.plain)
    if not found:
        print(f"{given.engines} has no CUDA engines.")
        return 1
    print("| engine | on CUDA | on CPU | in its CUDA graph | calls of a replay |")
    print("|---|---|---|---|---|", flush=True)
    problems: list[str] = []
    for engine, file in found.items():
        report = examine(engine, file, given.plain)
        print(report.line(), flush=True)
        problems += [] if given.plain else report.problems(most.get(engine))
    print(*problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
