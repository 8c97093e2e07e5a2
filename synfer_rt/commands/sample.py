"""The command `synfer-rt sample`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from synfer_rt.commands import options, parsing
from synfer_rt.commands.class_table import NOT_JUDGED, print_classes
from synfer_rt.commands.notes import note
from synfer_rt.commands.skipped import report_skipped
from synfer_rt.errors import UserError

if TYPE_CHECKING:
    from synfer_rt.api import Model
    from synfer_rt.jobs.sample import Summary, Written


@click.command()
@options.bundle
@click.option(
    "--plan",
    type=options.LocalPath(),
    metavar="FILE",
    help="Make what a plan describes, or, of a run.json, the same run again; see docs/plans.md.",
)
@click.option("--count", default=256, show_default=True, help="How many images, of all classes.")
@click.option(
    "--count-accepted",
    is_flag=True,
    help="Go on until each class has --count accepted images, or --budget is used up.",
)
@click.option(
    "--budget",
    type=int,
    help="The most images made for --count-accepted.  [default: 10 times those wanted]",
)
@options.accepting
@options.calibrating
@options.batch(256, "made at once")
@click.option(
    "--labels",
    type=parsing.Labels(),
    default="all",
    show_default=True,
    metavar="all|happy,sad,…",
    help="Expressions to request; they take turns.",
)
@click.option("--prompt", help="One prompt for all images.  [default: a sentence drawn for each]")
@click.option("--negative-prompt", help="What the images should not show.")
@click.option(
    "--au",
    "aus",
    type=parsing.Intensity(),
    multiple=True,
    callback=parsing.by_unit,
    metavar="AU12=0.8",
    help="Intensity of an action unit, 0 to 1; repeatable.  [default: drawn for each label]",
)
@click.option(
    "--quality",
    metavar="fast|best",
    help="fast: few steps of the bundle's distilled denoiser; best: every setting.  [default: the "
    "bundle's, and best for settings that fast cannot follow]",
)
@click.option("--steps", type=int, help="Solver steps.  [default: the bundle's]")
@click.option(
    "--timesteps",
    type=parsing.Timesteps(),
    metavar="999,749,…",
    help="The timesteps of the steps, instead of --steps.  [default: the solver's]",
)
@click.option(
    "--solver",
    help="ddim, euler, dpmpp-2m, dpmpp-3m or unipc; with fresh noise in each step: "
    "euler-ancestral, dpmpp-sde, lcm or tcd.  [default: the bundle's]",
)
@click.option("--eta", type=float, help="The share of fresh noise of tcd, 0 to 1.  [default: 0.3]")
@click.option(
    "--guidance", type=float, help="Guidance scale; 1 or less: none.  [default: the bundle's]"
)
@click.option(
    "--guidance-interval",
    type=parsing.NoiseLevels(),
    metavar="LO:HI",
    help="Guide only steps that start at a noise level above LO, at most HI.  [default: all]",
)
@click.option("--au-scale", type=float, help="Strength of the AUs.  [default: the bundle's]")
@click.option(
    "--layout",
    type=click.Choice(["bank", "none"]),
    help="Start from a neutral face of the bundle, or from noise.  [default: the bundle's]",
)
@click.option(
    "--layout-from",
    type=options.LocalPath(),
    metavar="DIR|FILE",
    help="Start from these photos of faces; each shows every label.",
)
@click.option(
    "--keep-label", is_flag=True, help="Request the label and caption that each photo has."
)
@click.option(
    "--aus-from",
    metavar="photo|reader|prototype",
    help="Take action units from the photos' table, from the bundle's AU reader, or from the "
    "label's prototypes.  [default: prototype]",
)
@click.option(
    "--inversion",
    metavar="predictor-corrector|fixed-point",
    help="How photos are inverted; fixed-point is that of release 0.1.  [default: "
    "predictor-corrector, and as a run was begun]",
)
@click.option(
    "--input-format", metavar="FORMAT", help="Format of a dataset of photos.  [default: auto]"
)
@click.option("--label-scheme", help="What label numbers of the photos mean; see label.")
@click.option("--split", help="Only this part of the photos: train, val or test.")
@options.aligning
@click.option(
    "--layout-strength",
    type=float,
    help="How much of a start face is made anew: above 0, at most 1.  [default: the bundle's; "
    "photos 0.7]",
)
@click.option(
    "--cache-every",
    type=int,
    metavar="N",
    help="Compute the UNet's deep part only in every N-th guided step, for a bundle built with "
    "--cache-depth.  [default: 1]",
)
@click.option(
    "--size",
    type=parsing.Size(),
    metavar="HxW",
    help="Size of the images, for a bundle of free sizes.  [default: the bundle's]",
)
@click.option(
    "--semantic-guidance",
    type=float,
    metavar="F",
    help="Steer each image towards its label by a classifier's gradient, this far a step.",
)
@click.option(
    "--semantic-form",
    metavar="latent|text-latent|text",
    help="What is moved, and through which classifier.  [default: latent]",
)
@click.option(
    "--semantic-start",
    type=float,
    metavar="FRACTION",
    help="The part of the steps that is not steered.  [default: 15/35]",
)
@click.option("--semantic-every", type=int, help="Steer at every N-th step.  [default: 1]")
@options.seed
@click.option(
    "--out",
    type=options.Output(),
    default=Path("synfer-out"),
    show_default=True,
    metavar="DIR|ADDRESS",
    help="Where the dataset is written; new or empty. An address is s3://…, gs://… or hf://….",
)
@options.written_format
@click.option(
    "--part",
    type=parsing.Part(),
    metavar="K/N",
    help="Make only the shards whose number is K modulo N, from 0/N to N-1/N; each part is a "
    "command of its own, on any machine that has OUT.",
)
@click.option(
    "--wait",
    type=float,
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="A part with --count-accepted waits for shards of others, until for so long no part has "
    "written anything.",
)
@click.option(
    "--ray",
    metavar="auto|local|HOST:PORT",
    help="Make the shards on a Ray cluster: that of this machine (auto), this machine alone "
    "(local), or another.  [default: in this process]",
)
@options.running
@options.resuming
def sample(
    bundle: Path | None,
    backend: str,
    threads: int | None,
    plan: Path | None,
    out: Path | str,
    **settings: Any,
) -> None:
    """Write a labelled dataset of faces.

    \b
    imagefolder  OUT/<label>/<index>.png and OUT/metadata.jsonl, a line an image
    webdataset   OUT/000000.tar, … with .png, .json and .cls
    parquet      OUT/data-00000.parquet, … with the image and every column

    OUT holds samples, and at the end a dataset card (README.md), which is beside OUT for parquet.
    With --image-format, images are .jpg or .webp. The folder beside OUT, __OUT__, has the settings
    (run.json) and the first images of each class (contact-sheet.html). To continue a run that was
    stopped, run the same command with --resume. Parts (--part) go on without it, and the last
    finishes the run. On a Ray cluster (--ray), all nodes must see OUT and the bundle; see
    docs/clusters.md.
    """
    from synfer_rt import api
    from synfer_rt.commands.progress import ProgressBar

    model = api.load(bundle, backend=backend, threads=threads)
    if plan is not None:
        beside, place = _beside_plan(settings), out if _is_given("out") else None
        with ProgressBar() as bar:
            datasets = model.write_plan(plan, place, on_progress=bar, **beside)
    else:
        with ProgressBar() as bar:
            datasets = (model.write(out, on_progress=bar, **settings),)
    for written in datasets:
        _report(model, written)


def _beside_plan(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that may stand beside a plan. Raises UserError for another that is given."""
    beside = ("layout_from", "part", "wait", "ray", "batch", "resume", "mix_backends")
    for name in settings:
        if name not in beside and _is_given(name):
            raise UserError(
                f"`plan` says all that decides the images; leave out `{name}`, or change the plan."
            )
    return {name: settings[name] for name in beside}


def _is_given(name: str) -> bool:
    """Whether an option is on the command line, not a default."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not ParameterSource.DEFAULT


def _report(model: Model, written: Written) -> None:
    """Print what was made, and where it lies."""
    out = written.path
    summary = written.summary
    if summary.images:
        judged = bool(model.bundle.annotators)
        classes = [name for name in model.bundle.classes if name in summary.labelled]
        print_classes(
            {name: summary.labelled[name] for name in classes},
            summary.accepted,
            "images" if summary.images == written.count else "made now",
            "" if judged and summary.accepted else "at the end" if judged else NOT_JUDGED,
        )
        click.echo(_speed(model, summary))
    if written.missing:
        click.echo(
            f"This part has its {written.count} images. Shards that other parts have not made yet: "
            f"{written.missing} (synfer-rt status {out})."
        )
    elif summary.images:
        click.echo(f"{out} holds {written.count} images; look at {written.contact_sheet}")
    else:
        click.echo(f"{out} already holds all {written.count} images (synfer-rt verify reads them).")
    report_skipped(written.skipped, written.skipped_file)
    _note_shortfalls(written)


def _speed(model: Model, summary: Summary) -> str:
    shares = ", ".join(
        f"{name} {seconds / summary.seconds:.0%}" for name, seconds in asdict(summary.times).items()
    )
    again = f"; {summary.retried} came out broken and were made again" if summary.retried else ""
    quality = f"quality {summary.quality}, " if len(model.bundle.qualities) > 1 else ""
    return (
        f"{summary.images} images in {summary.seconds:.1f} s, "
        f"{summary.images_per_second:.1f} images/s ({shares}){again}; {quality}ran on "
        f"{summary.ran_on}"
    )


def _note_shortfalls(written: Written) -> None:
    """Say which accepted images are missing, and how many images are broken."""
    summary = written.summary
    if summary.missing:
        lacking = ", ".join(f"{name} {images}" for name, images in summary.missing.items())
        note(
            f"The budget of {written.count} images is used up, and accepted images are missing: "
            f"{lacking}."
        )
    if summary.broken:
        note(
            f"{summary.broken} of them are flat or not finite, and not accepted; a lower "
            "`guidance` or `au_scale`, more `steps` or another `solver` may help."
        )
