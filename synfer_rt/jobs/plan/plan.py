"""A plan: everything that decides a dataset, checked; `fields.py` and `rerun.py` read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synfer_rt.bundle import Bundle
from synfer_rt.data.image_format import PNG, ImageFormat
from synfer_rt.data.writers import run_file
from synfer_rt.errors import UserError
from synfer_rt.jobs.plan.document import Document
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.sampling.apportionment import apportion
from synfer_rt.sampling.planned_requests import Distributions
from synfer_rt.sampling.splits import Split

DAMAGED = (LookupError, TypeError, ValueError, AttributeError)
"""What a run.json that was changed by hand may raise."""
_ARGUMENT = re.compile(r"`([a-z_]+)`")


@dataclass(frozen=True)
class Plan:
    """A dataset to make, of one run for each of `splits`, or of one run without splits.

    `settings` are those of `make_run`, without `count`. `count` is that of `make_run` for all
    splits together. `splits` has their weights by their names. `begun` is what run.json says if
    the plan is one. `notes` are remarks on the tables that the plan names.
    """

    document: Document
    settings: Mapping[str, Any]
    distributions: Distributions | None
    count: int
    format: str
    shard_size: int
    out: Path | None = None
    splits: Mapping[str, float] | None = None
    begun: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    image_format: ImageFormat = PNG

    def runs(self, bundle: Bundle, out: Path | None = None) -> dict[str, Run]:
        """The runs by the names of their splits; without splits the one run has the name "".

        `out` is where they are to be written, if they are. Raises UserError for what cannot be
        run, with the file and the line.
        """
        if self.splits is None:
            return {"": self._run(bundle, self, out)}
        runs: dict[str, Run] = {}
        for place, name in enumerate(self.splits):
            runs[name] = self._run(bundle, self._split(place, name), out)
        return runs

    def _split(self, place: int, name: str) -> Plan:
        """The plan of one split."""
        assert self.splits is not None
        weights, drawn = list(self.splits.values()), self.distributions or Distributions()
        counts = {x: apportion(n, weights)[place] for x, n in drawn.counts.items()}
        counts = {label: count for label, count in counts.items() if count}
        split = Split(name, self.splits)
        settings = {**self.settings, "seed": split.seed(self.settings.get("seed") or 0)}
        if counts:
            settings["labels"] = list(counts)
        if (budget := settings.get("budget")) is not None:
            settings["budget"] = apportion(budget, weights)[place]
        count = sum(counts.values()) if drawn.counts else apportion(self.count, weights)[place]
        if not count:
            raise self.document.error(
                ("splits", name), f"the split {name} gets no image; raise its share, or the count."
            )
        return replace(
            self,
            settings=settings,
            distributions=replace(drawn, counts=counts, split=split),
            count=count,
        )

    def _run(self, bundle: Bundle, part: Plan, out: Path | None) -> Run:
        try:
            run = make_run(
                bundle,
                count=part.count,
                out=out,
                distributions=part.distributions,
                **part.settings,  # pyright: ignore[reportArgumentType]
            )
        except UserError as error:
            raise self._located(error) from None
        except DAMAGED as error:
            if self.begun is None:
                raise
            raise damaged(self.document, error) from None
        if self.begun is not None:
            settings = {**run.settings(self.format), **self.image_format.settings}
            _check_same(self.begun, settings, self.document)
        return run

    def _located(self, error: UserError) -> UserError:
        """The error with the line of the first setting that it names."""
        text, given = str(error), self.document.values
        named = [name for name in _ARGUMENT.findall(text) if name in given]
        words = {*re.findall("[a-z_]+", text)}
        named += [name for name in given if words & {name, name.rpartition("_")[2]}]
        return self.document.error(tuple(named[:1]), _ARGUMENT.sub(r"'\1'", text))


def damaged(document: Document, error: Exception) -> UserError:
    """The error that a run.json does not hold what one holds."""
    return UserError(f"{document.name} is damaged ({error!r}); restore it, or name another plan.")


def _check_same(begun: Mapping[str, Any], settings: Mapping[str, Any], document: Document) -> None:
    """Raise UserError unless a run with these settings makes the samples of the run `begun`."""
    if begun.get("bundle") != settings["bundle"]:
        raise UserError(
            f"{document.name} was made by another bundle ({begun.get('bundle')}; this one is "
            f"{settings['bundle']}); name that one with `bundle`."
        )
    if begun.get("photo_set") != settings["photo_set"]:
        raise UserError(
            f"{document.name} was made from other photos; name those with `layout_from`."
        )
    apart = {*run_file.NOT_COMPARED, "shard_size"}
    for name in sorted((settings.keys() | begun.keys()) - apart):
        if begun.get(name) != settings.get(name):
            raise document.error(
                (name,), f"'{name}' does not fit the other settings; restore the file as it was."
            )
