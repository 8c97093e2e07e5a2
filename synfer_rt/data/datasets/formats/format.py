"""What a dataset format consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.items import Found

Test = Callable[[Contents], bool]


def _nothing(_: Contents) -> Mapping[Path, str]:
    return {}


@dataclass(frozen=True)
class Format:
    """A dataset format: a name, a reader, and tests that recognise it.

    `name` is what users write. `read` lists the images and what is not used; it decodes no image.

    A dataset has the first format in `registry.FORMATS` whose `certain` test passes, else the first
    whose `likely` test passes, else the first whose `possible` test passes:

    - `certain`: it has a file that no other format has, such as RAF-DB's label list;
    - `likely`: it has files that are seldom there for another reason, such as a table of labels;
    - `possible`: it has files that may be there for another reason, such as folders named after
      classes.

    `label_scheme` gives the format's label numbers their meaning, unless the user names another.
    `left_out` returns the files that are not given to `read`, each with the reason.
    """

    name: str
    read: Callable[[Contents], Found]
    certain: Test | None = None
    likely: Test | None = None
    possible: Test | None = None
    label_scheme: str | None = None
    left_out: Callable[[Contents], Mapping[Path, str]] = _nothing
