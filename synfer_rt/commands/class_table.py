"""The table of a run's classes: how many images each has, and how many are accepted."""

from __future__ import annotations

from collections.abc import Mapping


def print_classes(
    labelled: Mapping[str, int], accepted: Mapping[str, int], made: str, judged: bool
) -> None:
    """Print the images of each label, in this order, under the heading `made`, and the accepted.

    Where nobody judges, the table says so.
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
        table.add_row(label, str(images), *((str(yes), share) if judged else ("not judged", "")))
    console().print(table)
