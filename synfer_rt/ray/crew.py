"""The workers of a run on a Ray cluster: hired where there is room, and replaced when they end."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from synfer_rt.errors import UserError
from synfer_rt.jobs.kept_log import Remark
from synfer_rt.ray import cluster
from synfer_rt.ray.assignment import Assignment
from synfer_rt.ray.cluster import Node, Room
from synfer_rt.ray.worker import Job, Made, Ready, Refused, Worker

LOG = logging.getLogger("synfer_rt.jobs")
_TICK = 0.5
"""Seconds after which the crew looks up from waiting."""
_TELLING = "tell"
"""The concurrency group of an actor's calls that ask how far it is, beside the one that works."""
_LOOK = 2.0
"""Seconds between two looks at the cluster's nodes."""
_PATIENCE = 60.0
"""Seconds without a worker that is ready, after which a remark says what is waited for."""


@dataclass
class _Hired:
    """An actor on a node, and what it does: it prepares itself while `number` is None.

    `made` is how many images of its shard are made, as far as it has told.
    """

    actor: Any
    node: Node
    number: int | None = None
    made: float = 0.0


class Crew:
    """Makes the shards of an assignment with actors on all nodes of the cluster that `ray` is on.

    A worker has one task at a time, so at most as many shards are under way as there are workers.
    `gpu` and `threads` are those of `cluster.room`. `on_made` is given what a worker tells
    of each shard that is finished.
    """

    def __init__(
        self,
        ray: Any,
        job: Job,
        shards: Assignment,
        gpu: bool,
        threads: int | None,
        on_made: Callable[[Made], None],
    ) -> None:
        self._ray, self._shards = ray, shards
        self._job = ray.put(job)
        self._gpu, self._threads = gpu, threads
        self._quotas = job.run.quota is not None
        self._on_made = on_made
        self._calls: dict[Any, _Hired] = {}
        self._polls: dict[Any, _Hired] = {}
        self._refused: dict[str, str] = {}
        self._said: set[Remark] = set()
        self._looked = float("-inf")
        self._alive: list[Node] = []
        self._busy, self._began = time.monotonic(), False

    def work(self, on_tick: Callable[[float], None]) -> None:
        """Make all shards.

        `on_tick` is told again and again how many images are made of shards that are under way.
        However it ends, the actors end with it. Raises UserError where no node can take part, and
        as `Assignment` does.
        """
        try:
            while self._shards.unfinished:
                self._look()
                for call in self._finished_calls():
                    self._answered(call, self._calls.pop(call))
                self._ask_how_far()
                on_tick(sum(hired.made for hired in self._calls.values()))
        finally:
            for hired in self._calls.values():
                self._ray.kill(hired.actor)

    def _finished_calls(self) -> list[Any]:
        if not self._calls:
            time.sleep(_TICK)
            return []
        ready, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=_TICK)
        return ready

    def _look(self) -> None:
        """Hire workers where there is room, if it is time to look."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked, self._alive = now, cluster.nodes(self._ray)
        hired = Counter(worker.node.id for worker in self._calls.values())
        wanted = self._shards.unfinished - len(self._calls)
        for node in self._alive:
            if node.id in self._refused:
                continue
            room = self._room(node)
            for _ in range(min(room.workers - hired[node.id], wanted)):
                self._hire(node, room)
                wanted -= 1
        self._mind_idleness(now)

    def _hire(self, node: Node, room: Room) -> None:
        self._began = True
        options = cluster.placed_on(node, room)
        remote = self._ray.remote(concurrency_groups={_TELLING: 1})(Worker).options(**options)
        actor = remote.remote(self._job, max(room.cpus, 1))
        self._calls[actor.prepare.remote()] = _Hired(actor, node)

    def _mind_idleness(self, now: float) -> None:
        """Give up where no node can take part; say what is waited for where nobody works."""
        if any(hired.number is not None for hired in self._calls.values()):
            self._busy = now
            return
        able = [node for node in self._alive if self._room(node).workers]
        if able and not self._calls and {node.id for node in able} <= self._refused.keys():
            raise UserError(self._refused[able[-1].id])
        what = "has a GPU" if self._gpu else "has CPU cores"
        if not able and not self._began:
            raise UserError(
                f"No node of the Ray cluster {what} for a worker; add one that has, or choose "
                "another `backend`."
            )
        if now - self._busy < _PATIENCE:
            return
        self._busy = now
        LOG.warning(
            "No worker is ready yet; `ray status` shows whether the cluster has room for them."
            if able
            else f"No node of the Ray cluster {what} for a worker; waiting for one."
        )

    def _room(self, node: Node) -> Room:
        return cluster.room(node, self._gpu, self._threads)

    def _answered(self, call: Any, hired: _Hired) -> None:
        """Take what a worker's call came to, and give the worker its next shard."""
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(call)
        except errors.RayTaskError as error:
            # A fault of a runtime, after which a new process is safer, or of this program.
            self._ray.kill(hired.actor)
            self._failed(hired, error.as_instanceof_cause())
            return
        except errors.RayError as error:  # the process, the node or the way to it
            self._lost(hired, error)
            return
        if isinstance(answer, Made):
            assert hired.number is not None
            self._shards.finished(hired.number)
            self._on_made(answer)
            self._repeat(answer.remarks)
        elif isinstance(answer, Ready):
            self._repeat(answer.remarks)
        elif isinstance(answer, Refused):
            if hired.number is None:
                self._refuse(hired, answer.why)
                return
            self._failed(hired, UserError(answer.why))
        self._give(hired)

    def _give(self, hired: _Hired) -> None:
        """Give a worker the next shard; it leaves if there is none."""
        hired.number, hired.made = self._shards.take(), 0.0
        if hired.number is None:
            self._ray.kill(hired.actor)
        else:
            self._calls[hired.actor.make.remote(hired.number)] = hired

    def _failed(self, hired: _Hired, why: Exception) -> None:
        if hired.number is None:
            raise why
        self._shards.failed(hired.number, why)

    def _refuse(self, hired: _Hired, why: str) -> None:
        """Go on without a node that cannot take part, and say so once."""
        self._ray.kill(hired.actor)
        if hired.node.id not in self._refused:
            self._refused[hired.node.id] = why
            LOG.warning(f"The node {hired.node.host} takes no part: {why}")

    def _lost(self, hired: _Hired, error: Exception) -> None:
        """A worker is gone: give its shard back, and look whether its node is still there."""
        self._ray.kill(hired.actor)  # it may live on behind a network that fails
        if hired.number is not None:
            self._shards.back(hired.number)
        host, said = hired.node.host, str(error)
        if "No module named 'synfer_rt" in said:
            self._refuse(hired, f"synfer-rt is not installed on {host}; install it.")
            return
        if not any(node.id == hired.node.id for node in cluster.nodes(self._ray)):
            LOG.warning(f"The node {host} is gone; others make its shards.")
            self._make_way(hired.number)
            return
        why = [line for line in said.splitlines() if line.strip()][-1].strip().rstrip(".")
        LOG.warning(f"A worker on {host} has ended, and another takes its place: {why}.")
        self._shards.lost(f"on {host}: {why}", len(self._calls) + 1)

    def _make_way(self, number: int | None) -> None:
        """End the worker of the last shard where all may wait for this one, which nobody has."""
        if not self._quotas or number is None or not self._calls:
            return
        if any(hired.number is None for hired in self._calls.values()):
            return  # they will take it
        call = max(self._calls, key=lambda call: self._calls[call].number or 0)
        last = self._calls[call].number or 0
        if last > number:
            self._ray.kill(self._calls.pop(call).actor)
            self._shards.back(last)

    def _repeat(self, remarks: tuple[Remark, ...]) -> None:
        """Log what a worker has logged, unless another has said the same."""
        for remark in remarks:
            if remark not in self._said:
                self._said.add(remark)
                LOG.log(*remark)

    def _ask_how_far(self) -> None:
        """Take what workers tell about their shards, and ask again; it may take them a while."""
        if self._polls:
            told, _ = self._ray.wait(list(self._polls), num_returns=len(self._polls), timeout=0)
            for poll in told:
                hired = self._polls.pop(poll)
                with suppress(self._ray.exceptions.RayError):  # its other call says so, too
                    hired.made = self._ray.get(poll)
        asked = {id(hired) for hired in self._polls.values()}
        for hired in self._calls.values():
            if hired.number is not None and id(hired) not in asked:
                told = hired.actor.made.options(concurrency_group=_TELLING).remote()
                self._polls[told] = hired
