"""What decides the samples of a run: its settings, checked, with the bundle's defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from synfer_rt.bundle import Bundle
from synfer_rt.bundle.engine_specs import REQUIRED_ENGINES
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.errors import UserError
from synfer_rt.judging.acceptance import Accept, acceptance
from synfer_rt.judging.quotas import Quotas
from synfer_rt.records import record
from synfer_rt.sampling.guidance import SemanticGuidance, engine_name
from synfer_rt.sampling.inversion import Photos
from synfer_rt.sampling.requests import Requests
from synfer_rt.sampling.sampler import Sample


@dataclass(frozen=True)
class Run:
    """Everything that decides what the samples of a run are.

    `layout_strength` in (0, 1] is the part of the noise schedule that is run on a layout; without
    a layout bank it is 1. `semantic` steers every sample towards its label. `photos` are the faces
    to start from, of which `requests` knows the number. `accept_rate` and `threshold` say what is
    accepted (see annotate.acceptance). With `quota` the run goes on until each class has so many
    accepted samples, and `count` is the most that it makes.
    """

    bundle: Bundle
    requests: Requests
    count: int
    solver: str
    steps: int
    layout_strength: float
    semantic: SemanticGuidance | None = None
    photos: Photos | None = None
    accept_rate: float | None = None
    threshold: float | None = None
    quota: int | None = None

    def check(self) -> None:
        """Raise UserError for what cannot be run, before anything is loaded or written."""
        _ = self.trajectory
        self.acceptance()

    def acceptance(self) -> Accept:
        """What is accepted. Raises UserError for what cannot be, or nobody could judge."""
        selects = (self.accept_rate, self.threshold, self.quota) != (None, None, None)
        if selects and not self.bundle.annotators:
            raise UserError(
                f"{self.bundle.name} has neither a classifier nor an annotator, so nothing can be "
                "accepted; build it with one, or leave out --accept-rate, --threshold and "
                "--count-accepted."
            )
        return acceptance(self.accept_rate, self.threshold)

    def quotas(self) -> Quotas | None:
        """The labels that a run with a quota requests; None without one."""
        if self.quota is None:
            return None
        return Quotas(dict.fromkeys(self.requests.labels, self.quota), self.count)

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that the run needs."""
        guides = () if self.semantic is None else (engine_name(self.semantic.form),)
        readers = () if self.photos is None else ("encoder",)
        return (*REQUIRED_ENGINES, *readers, *guides, *self.bundle.annotators)

    @cached_property
    def trajectory(self) -> Trajectory:
        """The solver's steps. Raises UserError for a solver, steps or strength that do not fit."""
        return self.bundle.trajectory(self.solver, self.steps, self.layout_strength)

    def settings(self, format: str) -> dict[str, Any]:
        """The run as JSON values, for run.json."""
        requests, size = self.requests, self.bundle.image_size
        return {
            "bundle": self.bundle.bundle_hash,
            "format": format,
            "count": self.count,
            "labels": list(requests.labels),
            "prompt": requests.prompt,
            "negative_prompt": requests.negative_prompt,
            "aus": None if requests.aus is None else dict(requests.aus),
            "solver": self.solver,
            "steps": self.steps,
            "guidance": requests.guidance,
            "au_scale": requests.au_scale,
            "layout": "photos" if requests.photos else "none" if requests.bank is None else "bank",
            "photo_set": None if self.photos is None else self.photos.digest,
            "layout_strength": self.layout_strength,
            "seed": requests.seed,
            "semantic_guidance": None if self.semantic is None else asdict(self.semantic),
            "accept_rate": self.accept_rate,
            "threshold": self.threshold,
            "accepted_per_class": self.quota,
            "label_scheme": self.bundle.label_scheme,
            "classes": list(self.bundle.classes),
            "au_vocabulary": list(self.bundle.au_names) or None,
            **({} if size == self.bundle.default_size else {"size": list(size)}),
        }

    def record(self, sample: Sample) -> dict[str, Any]:
        """What is written beside an image: all that is needed to make it again, and its label."""
        request, source = sample.request, {}
        if self.photos is not None and request.layout is not None:
            source = {
                "source": self.photos.names[request.layout],
                "source_sha256": self.photos.sha256[request.layout],
            }
        return record(
            self.bundle,
            index=request.index,
            seed=request.seed,
            requested_label=request.label,
            label=sample.label,
            probabilities=sample.probabilities,
            rectified=sample.rectified,
            accepted=sample.accepted,
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            aus=request.aus,
            guidance=request.guidance,
            au_scale=request.au_scale,
            solver=self.solver,
            steps=self.steps,
            layout=request.layout,
            layout_strength=self.layout_strength,
            semantic_guidance=None if self.semantic is None else asdict(self.semantic),
            backend=sample.backend,
            **source,
        )
