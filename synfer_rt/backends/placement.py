"""What really ran an engine: its backend, its file, and the execution provider of each node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from synfer_rt.backends.engine import Engine

_CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Placement:
    """Where an engine runs.

    `nodes` are the numbers of the graph's nodes by execution provider; empty where the runtime does
    not divide a graph.
    """

    backend: str
    file: str
    nodes: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def fallen(self) -> int:
        """The number of nodes that another provider left to the CPU."""
        return self.nodes.get(_CPU, 0) if len(self.nodes) > 1 else 0

    def settings(self) -> dict[str, Any]:
        """The fields as JSON values, for run.json."""
        fields: dict[str, Any] = {"backend": self.backend, "file": self.file}
        return fields | ({"nodes": dict(self.nodes)} if self.nodes else {})


@runtime_checkable
class Placed(Protocol):
    """An engine that knows more of its placement than its backend."""

    def placement(self) -> Placement:
        """Where it runs."""
        ...


def placement(engine: Engine) -> Placement:
    """Where a loaded engine runs."""
    if isinstance(engine, Placed):
        return engine.placement()
    return Placement(engine.backend, engine.spec.file)


def nodes_by_provider(session: Any) -> dict[str, int]:
    """The numbers of nodes of an inference session that records them (`open_session`)."""
    counts: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    return dict(counts)


def described(placements: Iterable[Placement]) -> str:
    """The backends with their nodes by provider, as the end of a sentence."""
    nodes: dict[str, Counter[str]] = {}
    for one in placements:
        nodes.setdefault(one.backend, Counter()).update(one.nodes)
    return ", ".join(
        backend
        + (f" ({', '.join(f'{n} nodes on {p}' for p, n in counts.most_common())})" * bool(counts))
        for backend, counts in nodes.items()
    )
