"""The passes of an evaluation over images: real ones, then those of the run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.data.datasets import Dataset, Item
from synfer_rt.errors import UserError
from synfer_rt.evaluation.neighbours import Nearest
from synfer_rt.jobs.evaluation import features as measures
from synfer_rt.jobs.evaluation.features import Side
from synfer_rt.jobs.evaluation.images import RunImages, decoded, pieces
from synfer_rt.jobs.evaluation.job import EvaluationJob, Networks
from synfer_rt.jobs.evaluation.readers import Groups, Judged, UnitsRead
from synfer_rt.records import Record

COLUMNS = ("index", "requested_label")
"""The first columns of the table of images."""


@dataclass
class Pass:
    """What is measured of one side's images as they come."""

    sides: dict[str, Side]
    labels: list[str | None] = field(default_factory=list[str | None])
    names: list[str] = field(default_factory=list[str])
    people: list[str | None] = field(default_factory=list[str | None])
    unreadable: list[str] = field(default_factory=list[str])
    judged: list[Judged] = field(default_factory=list[Judged])


def _sides(
    networks: Networks, job: EvaluationJob, seed: int, folder: Path | None, name: str
) -> dict[str, Side]:
    """What features of one side are measured, by the argument that gives their network."""
    found: dict[str, Side] = {}
    for what, network in (("features", networks.features), ("identity", networks.identity)):
        if network is not None:
            file = None if folder is None else folder / f"{name}-{what}.f32"
            found[what] = Side(network, what == "identity", job.subset, seed, file)
    return found


def read_real(
    job: EvaluationJob,
    dataset: Dataset,
    networks: Networks,
    classes: Sequence[str],
    reads: Callable[[Item], np.ndarray | str],
    folder: Path,
    report: Callable[[float], None],
) -> Pass:
    """The real images, which `reads` fits to the size of the generated ones.

    Judges read those whose label is one of `classes`.
    """
    real = Pass(_sides(networks, job, job.seed, folder, "real"))
    real.judged = [Judged(judge, classes) for judge in networks.judges]
    done = 0
    for piece in pieces(dataset.items, reads):
        if piece.of:
            for side in real.sides.values():
                side.add(piece.images)
        labels = [item.label for item in piece.of]
        if known := [i for i, label in enumerate(labels) if label in classes]:
            records: list[Record] = [{"requested_label": labels[i]} for i in known]
            for judged in real.judged:
                judged.add(piece.images[known], records)
        real.labels += labels
        real.names += [item.name for item in piece.of]
        real.people += [item.person for item in piece.of]
        real.unreadable += piece.unreadable
        done += len(piece.of) + len(piece.unreadable)
        report(done)
    if not real.names:
        raise UserError(
            f"No image of {dataset.path} can be read ({real.unreadable[0]}); give others as `real`."
        )
    return real


class Made:
    """The generated images: what every network finds in them."""

    def __init__(
        self,
        job: EvaluationJob,
        networks: Networks,
        settings: Mapping[str, Any],
        folder: Path | None,
    ) -> None:
        self.own = Pass(_sides(networks, job, job.seed + 1, folder, "made"))
        self.indices: list[int] = []
        self._judges = networks.judge_names
        self._classes = list(settings["classes"])
        self.own.judged = [Judged(judge, self._classes) for judge in networks.judges]
        self._groups = Groups(settings)
        self._units, units = None, settings.get("au_vocabulary")
        if networks.au_reader is not None and units:
            self._units = UnitsRead(networks.au_reader, units)
            if not self._units.units:
                raise UserError("The `au_reader` reads no action unit of the run; give another.")
        self._near: dict[str, Nearest] = {}

    def read(
        self, images: RunImages, size: tuple[int, int], report: Callable[[float], None]
    ) -> None:
        """Read all images of a run, which have this `size`."""
        for piece in pieces(images, decoded(size)):
            records: list[Record] = [record for record, _ in piece.of]
            self.own.unreadable += piece.unreadable
            if records:
                self._add(piece.images, records)
            report(len(self.indices) + len(self.own.unreadable))

    def _add(self, images: np.ndarray, records: list[Record]) -> None:
        for side in self.own.sides.values():
            side.add(images)
        for judged in self.own.judged:
            judged.add(images, records)
        if self._units is not None:
            self._units.add(images, records)
        self._groups.add(records)
        self.own.labels += [record["requested_label"] for record in records]
        self.indices += [int(record.get("index", -1)) for record in records]

    def result(self, real: Pass | None, person: str | None) -> dict[str, Any]:
        """The measures as JSON values; null for those that nothing was given for."""
        found: dict[str, Any] = {
            "accuracy": self._accuracy(real),
            "action_units": None if self._units is None else self._units.result(),
            "acceptance": self._groups.result(),
            "distances": None,
            "diversity": None,
            "neighbours": None,
            "identity": None,
        }
        if "features" in self.own.sides:
            features = self.own.sides["features"].features
            found["diversity"] = {"made": self._diversity(self.own), "real": None}
            if real is not None:
                others = real.sides["features"].features
                found["diversity"]["real"] = self._diversity(real)
                found["distances"] = measures.distances(features, others)
                near = measures.to_nearest(features.every, others.every)
                own = measures.among_real(others, np.arange(len(real.names)))
                found["neighbours"] = measures.neighbours(near, own, self.indices, real.names)
                self._near["real"] = near
        if real is not None and "identity" in self.own.sides:
            others = real.sides["identity"].features
            people = measures.numbers_of_people(real.names, real.people, person)
            near = measures.to_nearest(self.own.sides["identity"].features.every, others.every)
            found["identity"] = measures.identity(near, others, people, self.indices, real.names)
            self._near["identity"] = near
        return found

    def _accuracy(self, real: Pass | None) -> list[dict[str, Any]]:
        """Of each judge, with its accuracy on the labels of real images, null without any."""
        found = [
            {"judge": name, **judged.result()}
            for name, judged in zip(self._judges, self.own.judged, strict=True)
        ]
        for number, one in enumerate(found):
            of_real = None if real is None else real.judged[number].result()["requested"]
            one["real"] = of_real if of_real and of_real["images"] else None
        return found

    def _diversity(self, one: Pass) -> dict[str, Any]:
        numbers = [self._classes.index(x) if x in self._classes else -1 for x in one.labels]
        return measures.diversity(one.sides["features"].features, numbers)

    def table(self, real: Pass | None) -> str:
        """A line for each image: its index and class, what judges read, and its neighbours."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = [*COLUMNS, *(f"judge.{name}" for name in self._judges)]
        if "real" in self._near:
            columns += ["nearest_real", "nearest_distance"]
        if "identity" in self._near:
            columns += ["identity_real", "identity_similarity"]
        writer.writerow(columns)
        for row, index in enumerate(self.indices):
            line = [index, self.own.labels[row], *(judged.read[row] for judged in self.own.judged)]
            if real is not None:
                for what, near in self._near.items():
                    value = near.distances[row]
                    value = measures.similarity(value) if what == "identity" else value
                    line += [real.names[near.rows[row]], f"{value:.6g}"]
            writer.writerow(line)
        return text.getvalue()
