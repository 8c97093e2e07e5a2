"""A plan from its file, which somebody wrote or which is the run.json of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.jobs.plan.document import Document, read_document
from synfer_rt.jobs.plan.fields import plan_of
from synfer_rt.jobs.plan.plan import Plan
from synfer_rt.jobs.plan.rerun import is_run, plan_of_run
from synfer_rt.paths import local


def read_plan(source: object, bundle: Bundle, layout_from: Path | None = None) -> Plan:
    """The plan in a file, or in a mapping of what such a file holds, for `bundle`.

    `layout_from` are the photos of a run that is made again. Raises UserError for what is wrong,
    with the file and the line; `Plan.runs` does so for settings that a run cannot have.
    """
    if isinstance(source, Mapping):
        values = cast("Mapping[str, Any]", source)
        document = Document(values, "The plan", Path())
    else:
        document = read_document(local(source, "plan"))
    if is_run(document):
        return plan_of_run(document, layout_from)
    if layout_from is not None:
        raise UserError(
            "`layout_from` beside `plan` is for a plan that is a run.json; write it in the plan."
        )
    return plan_of(document, bundle)
