"""run.json as a plan: the settings of a run, from which the same run is made again."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synfer_rt import ranges
from synfer_rt.backends import choose
from synfer_rt.backends.computation import computation
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.qualities import BEST
from synfer_rt.data import writers
from synfer_rt.data.image_format import of_settings
from synfer_rt.diffusion.inversion import FIXED_POINT
from synfer_rt.errors import UserError
from synfer_rt.faces import weights
from synfer_rt.jobs.photo_reading import read_as
from synfer_rt.jobs.plan.document import Document
from synfer_rt.jobs.plan.plan import DAMAGED, Plan, damaged
from synfer_rt.records import CORESET
from synfer_rt.sampling.au_distributions import AuDistribution, AuRanges, AuRows
from synfer_rt.sampling.planned_requests import Distributions
from synfer_rt.sampling.splits import Split
from synfer_rt.vocabulary.prompt_templates import Template

LOG = logging.getLogger(__name__)
_AS_THEY_ARE = (
    *("labels", "prompt", "negative_prompt", "aus", "quality", "solver", "steps", "guidance"),
    *("au_scale", "layout_strength", "seed", "accept_rate", "threshold", "cache_every"),
    *("timesteps", "eta", "calibration"),
)
"""Settings that run.json has under the names of `make_run`, in the same form."""


def is_run(document: Document) -> bool:
    """Whether a document is the run.json of a run, not a plan that somebody wrote."""
    return {"bundle", "format", "count", "classes", "label_scheme"} <= document.values.keys()


def plan_of_run(document: Document, layout_from: Path | None) -> Plan:
    """The plan that makes a run again of which `document` is the run.json.

    `layout_from` are the photos of a run that started from photos. Raises UserError for a run of
    another command, photos that are missing or not needed, and a damaged file.
    """
    begun = {"quality": BEST, **document.values}
    if "dataset" in begun:
        raise UserError(f"{document.name} is of a run of `augment`; name that of a `sample` run.")
    if CORESET in begun:
        raise UserError(
            f"{document.name} is of a core-set; name that of the run that it was chosen from."
        )
    _check_photos(document, begun, layout_from)
    try:
        return Plan(
            document,
            _settings(begun, layout_from),
            _distributions(begun),
            _count(begun),
            begun["format"],
            ranges.whole("shard_size", begun.get("shard_size", writers.SHARD_SIZE), 1),
            begun=begun,
            image_format=of_settings(begun),
        )
    except DAMAGED as error:
        raise damaged(document, error) from None


def _check_photos(document: Document, begun: Mapping[str, Any], layout_from: Path | None) -> None:
    from_photos = begun.get("photo_set") is not None
    if from_photos and layout_from is None:
        raise UserError(
            f"{document.name} is of a run that starts from photos, which it knows by their content "
            "alone; say where they are with `layout_from`."
        )
    if layout_from is not None and not from_photos:
        raise UserError(f"{document.name} starts from no photos; leave out `layout_from`.")


def _settings(begun: Mapping[str, Any], layout_from: Path | None) -> dict[str, Any]:
    """The settings of `make_run`."""
    settings = {name: begun[name] for name in _AS_THEY_ARE if begun.get(name) is not None}
    if "timesteps" in settings:
        del settings["steps"]
    if begun["layout"] == "none":
        del settings["layout_strength"]
    if layout_from is None:
        settings["layout"] = begun["layout"]
    else:
        settings |= _of_photos(begun, layout_from)
    if settings.get("keep_label"):
        del settings["labels"]
    if (interval := begun.get("guidance_interval")) is not None:
        settings["guidance_interval"] = tuple(math.inf if x is None else x for x in interval)
    if (size := begun.get("size")) is not None:
        settings["size"] = tuple(size)
    if (semantic := begun.get("semantic_guidance")) is not None:
        settings["semantic_guidance"] = semantic["strength"]
        settings |= {f"semantic_{name}": semantic[name] for name in ("form", "start", "every")}
    if begun.get("accepted_per_class") is not None:
        settings |= {"count_accepted": True, "budget": begun["count"]}
    return settings


def _of_photos(begun: Mapping[str, Any], layout_from: Path) -> dict[str, Any]:
    """How photos are read and inverted, and what is taken from them."""
    taken = {name: begun[name] for name in ("keep_label", "aus_from") if name in begun}
    if begun.get("aus") is not None:
        taken.pop("aus_from", None)
    how: dict[str, Any] = {"inversion": begun.get("inversion", FIXED_POINT)}
    if (align := begun.get("align")) is not None:
        if align["detector"] != weights.SHA256:
            raise UserError(
                "The run's photos were aligned with a face detector of the user's, which run.json "
                "knows by its hash alone; give the settings to `sample`, with `face_detector`."
            )
        how |= {"align": True, "face": align["face"]}
    return {"layout_from": layout_from, **how, **taken, **read_as(begun)}


def _count(begun: Mapping[str, Any]) -> int:
    """The `count` of `make_run`."""
    quota = begun.get("accepted_per_class")
    if isinstance(quota, dict):
        return sum(begun["class_counts"].values())
    return begun["count"] if quota is None else quota


def _distributions(begun: Mapping[str, Any]) -> Distributions | None:
    if "class_counts" not in begun:
        return None
    template, split = begun["template"], begun.get("split")
    return Distributions(
        begun["class_counts"],
        begun["attributes"],
        None if template is None else Template(template),
        _aus(begun["au_distributions"]),
        None if split is None else Split(split, begun["splits"]),
    )


def _aus(groups: Sequence[Mapping[str, Any]]) -> dict[str, AuDistribution]:
    """The distributions by label that `Distributions.settings` grouped. Raises ValueError."""
    found: dict[str, AuDistribution] = {}
    for group in groups:
        if "ranges" in group:
            ends = group["ranges"].items()
            drawn = AuRanges({name: (float(low), float(high)) for name, (low, high) in ends})
        else:
            drawn = AuRows(tuple(group["units"]), tuple(group["rows"]))
            for row in drawn.rows:
                if [0 <= float(x) <= 1 for x in row.split()] != [True] * len(drawn.units):
                    raise ValueError(f"{row!r} is no row of intensities")
        found |= dict.fromkeys(group["labels"], drawn)
    return found


def backend_for(plan: Plan, asked: str, bundle: Bundle, here: bool = True) -> str:
    """The backend on which to make a plan's runs: the one of the run that it makes again.

    Another one may be `asked` for by name, with a warning that images come out slightly different.
    Raises UserError for one that does not work `here`, unless the runs are made elsewhere.
    """
    known = None if plan.begun is None else plan.begun.get("backend")
    if plan.begun is None or known is None:
        return asked
    if not here:
        return str(known) if asked == "auto" else asked
    try:
        backend, _ = choose(known if asked == "auto" else asked, bundle)
    except UserError as error:
        if asked != "auto":
            raise
        raise UserError(
            f"{plan.document.name} was made on {known}, which does not work here: {error} Name "
            "another with `backend`, where the same seeds make slightly different images."
        ) from None
    if computation(bundle, backend).differs(plan.begun):
        LOG.warning(
            f"{plan.document.name} was made on {known} or another version of it; here the same "
            "images come out slightly different."
        )
    return backend
