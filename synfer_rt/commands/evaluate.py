"""The command `synfer-rt evaluate`: what papers report of a run, as a table and a JSON file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from synfer_rt.commands import options
from synfer_rt.commands.notes import note

_SPEC = "64,grey or 224,bgr,imagenet or 64,rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5"
Row = tuple[str, str, str, str]


@click.command()
@click.argument("run", type=options.Output())
@click.option("--real", type=options.LocalPath(), help="Real images to compare with.")
@options.reading("--real-format")
@options.features("compared")
@click.option(
    "--judge",
    "judges",
    type=(str, str, str),
    multiple=True,
    metavar="FILE SCHEME SPEC",
    help=f"ONNX expression classifier that had no part in the run, its label scheme, and its "
    f"input: {_SPEC}. Repeat it for several.",
)
@click.option(
    "--au-reader",
    type=(str, str, str),
    metavar="FILE UNITS SPEC",
    help="ONNX network that reads action units, a vocabulary or a list of them, and its input; "
    "add `logits` if a sigmoid is missing.  [default: the bundle's]",
)
@click.option(
    "--identity",
    type=(str, str),
    metavar="FILE SPEC",
    help="ONNX network that embeds faces, to find real persons among the generated ones.",
)
@click.option(
    "--person",
    metavar="REGEX",
    help="Finds the person in the name of a real image, such as '^(.*?)_'.  [default: whom the "
    "dataset names, otherwise every image shows another one]",
)
@options.bundle
@click.option(
    "--subset",
    default=10_000,
    show_default=True,
    help="Images of each side that are compared pair by pair.",
)
@click.option("--seed", default=0, show_default=True, help="Draws them.")
@click.option(
    "--out",
    type=options.LocalPath(),
    metavar="FILE",
    help="A .json file; a .csv file of the images is written beside it.  [default: "
    "evaluation.json beside run.json]",
)
@options.networks
def evaluate(run: Path | str, **settings: Any) -> None:
    """Measure what `sample` wrote, as papers do.

    Without further files the table has the acceptance of each class and attribute, the agreement
    of requested and read action units, and diversity. --judge adds accuracy, --real the distances
    FID and KID, precision, recall, density, coverage and the nearest real images, and --identity
    how many generated faces resemble a real person. A judge that guided or labelled the run is
    refused.
    """
    from synfer_rt import api
    from synfer_rt.commands.progress import ProgressBar

    with ProgressBar() as bar:
        found = api.evaluate(run, on_progress=bar, **settings)
    _print(list(_rows(found.result)))
    for text in found.result["notes"]:
        note(text)
    click.echo(f"{found.path} has all figures, {found.table} a line for each image.")


def _print(rows: Sequence[Row]) -> None:
    from rich.table import Table

    from synfer_rt.commands.progress import console

    table = Table("measure", "value", "95 % interval", "images", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _rows(result: Mapping[str, Any]) -> Iterator[Row]:
    yield from _distances(result)
    for judge in result["accuracy"]:
        name = judge["judge"]
        yield _share(f"accuracy, {name}", judge["requested"])
        macro = judge["requested"]["macro"]
        yield f"  mean over classes, {name}", _percent(macro), "", ""
        for label, one in judge["requested"]["per_class"].items():
            yield _share(f"  {label}, {name}", one)
        yield _share(f"  of the accepted, by their label, {name}", judge["accepted"])
        if judge["real"] is not None:
            yield _share(f"  of real images, {name}", judge["real"])
    yield from _units(result["action_units"])
    yield from _diversity(result["diversity"])
    yield from _neighbours(result)
    accepted = result["acceptance"]
    if accepted is None:
        yield "accepted", "not judged", "", ""
        return
    yield _share("accepted", accepted)
    for name, words in accepted["groups"].items():
        for word, one in words.items():
            yield _share(f"  {name} {word}", one)


def _distances(result: Mapping[str, Any]) -> Iterator[Row]:
    found = result["distances"]
    if found is None:
        return
    both = f"{found['images']['made']} / {found['images']['real']}"
    yield "FID", _number(found["fid"]), "", both
    yield "FID, extrapolated", _number(found["fid_infinite"]), "", both
    if (kid := found["kid"]) is not None:
        half = 1.96 * kid["standard_error"]
        interval = f"{_number(kid['value'] - half)} to {_number(kid['value'] + half)}"
        count = kid["blocks"] * kid["block_size"]
        yield "KID", _number(kid["value"]), interval, f"{count} / {count}"
    if (manifold := found["manifold"]) is not None:
        count = f"{manifold['images']} / {manifold['images']}"
        for name in ("precision", "recall", "density", "coverage"):
            yield name, _number(manifold[name]), "", count


def _units(found: Mapping[str, Any] | None) -> Iterator[Row]:
    if found is None:
        return
    count = str(found["images"])
    yield "AU correlation, mean", _number(found["mean_correlation"]), "", count
    yield "AU F1, mean", _number(found["mean_f1"]), "", count
    for name, unit in found["units"].items():
        if unit["correlation"] is not None:
            low, high = unit["interval"]
            interval = f"{low:.2f} to {high:.2f}"
            said = f"{unit['correlation']:.2f}, F1 {_number(unit['f1'])}"
            yield f"  {name}", said, interval, f"{unit['asked']} asked"


def _diversity(found: Mapping[str, Any] | None) -> Iterator[Row]:
    for side in ("made", "real") if found else ():
        one = found[side] if found else None
        if one is not None:
            name = "" if side == "made" else " of real images"
            yield f"Vendi score{name}", _number(one["vendi"]), "", str(one["images"])
            within = _number(one["within_class_distance"])
            yield f"distance within a class{name}", within, "", str(one["within_class_images"])


def _neighbours(result: Mapping[str, Any]) -> Iterator[Row]:
    if (near := result["neighbours"]) is not None:
        yield "distance to the nearest real image", _number(near["median"]), "", ""
        yield "  of real images to the nearest other", _number(near["median_of_real"]), "", ""
        if near["nearer_than_threshold"] is not None:
            yield _share("  nearer than 99 % of real images", near["nearer_than_threshold"])
            yield _share("  real images that are", near["real_nearer_than_threshold"])
    if (leak := result["identity"]) is not None:
        yield _share(f"identity leaked, above {leak['threshold']:.3f}", leak["leaked"])
        yield _share("  of real images, to another person", leak["leaked_of_real"])
        if leak["same_person"] is not None:
            yield _share("  real persons recognised", leak["same_person"])


def _share(name: str, found: Mapping[str, Any]) -> Row:
    if found["share"] is None:
        return name, "", "", "0"
    low, high = found["interval"]
    return (
        name,
        _percent(found["share"]),
        f"{_percent(low)} to {_percent(high)}",
        str(found["images"]),
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
