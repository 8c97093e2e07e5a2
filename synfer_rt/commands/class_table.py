"""The table of a run's classes: how many images each has, and how many are accepted."""

from __future__ import annotations

from collections.abc import Mapping

NOT_JUDGED = "not judged"


def print_classes(
    labelled: Mapping[str, int], accepted: Mapping[str, int], made: str, instead: str = ""
) -> None:
    """Print the images of each label, in this order, under the heading `made`, and the accepted.

    A text `instead` of these says why there are none.
    """
    from rich.table import Table

    from synfer_rt.commands.progress import console

    table = Table("class", made, "accepted", "", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for label, images, yes in (
        *((name, images, accepted.get(name, 0)) for name, images in labelled.items()),
        ("all", sum(labelled.values()), sum(accepted.values())),
    ):
        share = f"{yes / images:.0%}" if images else ""
        table.add_row(label, str(images), *((instead, "") if instead else (str(yes), share)))
    console().print(table)
