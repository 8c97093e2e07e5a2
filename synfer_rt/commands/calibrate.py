"""The command `synfer-rt calibrate`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synfer_rt.commands import options
from synfer_rt.commands.notes import note
from synfer_rt.commands.skipped import report_reasons

if TYPE_CHECKING:
    from synfer_rt.jobs.calibrate import Calibrations

_SHOWN = 0.9
"""The coverage for which the summary shows thresholds."""


@click.command()
@click.option(
    "--data",
    type=options.LocalPath(),
    multiple=True,
    required=True,
    metavar="DIR|FILE",
    help="Labelled images that neither trained nor will be labelled; may be repeated.",
)
@click.option(
    "--out",
    type=options.LocalPath(),
    default=Path("calibration.json"),
    show_default=True,
    metavar="FILE",
    help="The file for --calibration of label and sample; one that is there is replaced.",
)
@options.judged_images()
def calibrate(
    data: tuple[Path, ...],
    bundle: Path | None,
    backend: str,
    threads: int | None,
    out: Path,
    **settings: Any,
) -> None:
    """Calibrate a bundle's annotators on labelled images.

    A quarter of each class fits a temperature for every annotator and for their vote, the rest the
    thresholds of label sets. `label` and `sample` with --calibration then write probabilities that
    mean what they say, and for each image the set of classes that holds the true one as often as
    --coverage says, class by class, for images like those of --data.
    """
    from synfer_rt import api
    from synfer_rt.commands.progress import ProgressBar

    model = api.load(bundle, backend=backend, threads=threads)
    with ProgressBar() as bar:
        found = model.calibrate(data, out, on_progress=bar, **settings)
    _print_summary(found)


def _print_summary(found: Calibrations) -> None:
    from synfer_rt.judging.calibration import images_needed, threshold

    fitted, calibration = found.fitted, found.fitted.calibration
    for name, temperature in calibration.temperatures.items():
        click.echo(f"{name}: temperature {temperature:.3f}, from {fitted.images[name]} images")
    click.echo(f"vote: temperature {calibration.vote:.3f}, from {fitted.fitted} images")
    before, after = fitted.losses
    click.echo(
        f"negative log-likelihood of the other images: {before:.4f} before, {after:.4f} after"
    )
    for name, scores in calibration.scores.items():
        most = f"coverage up to {len(scores) / (len(scores) + 1):.3f}" if scores else "no image"
        least = threshold(scores, _SHOWN)
        shown = f", in sets of {_SHOWN:g} from probability {least:.4f}" if least else ""
        click.echo(f"{name}: {len(scores)} images, {most}{shown}")
    click.echo(f"The calibration is in {found.path}.")
    if few := calibration.too_few(_SHOWN):
        note(
            f"Sets of coverage {_SHOWN:g} need {images_needed(_SHOWN)} images of a class to leave "
            f"it out; these have fewer, and will be in every set: {', '.join(few)}."
        )
    if found.skipped:
        reasons = Counter(reason for _, reason in found.skipped)
        report_reasons(f"{len(found.skipped)} images left out:", reasons)
