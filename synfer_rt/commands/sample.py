"""The command `synfer-rt sample`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synfer_rt.commands import options
from synfer_rt.commands.annotators import warn_of_other_images
from synfer_rt.commands.interruption import RESUME, going_on
from synfer_rt.commands.notes import note
from synfer_rt.commands.options import MOST_THREADS, check_number, check_resuming
from synfer_rt.errors import UserError

if TYPE_CHECKING:
    from synfer_rt.backends.loaded_engines import LoadedEngines
    from synfer_rt.bundle import Bundle
    from synfer_rt.data.writers import Writer
    from synfer_rt.jobs.sample import Summary
    from synfer_rt.jobs.sample_run import Run
    from synfer_rt.sampling.inversion import Photos, PhotoStarts
    from synfer_rt.sampling.requests import Requests


@click.command()
@options.bundle
@click.option("--count", default=256, show_default=True, help="How many images, of all classes.")
@click.option(
    "--count-accepted",
    is_flag=True,
    help="Go on until each class has --count images that are accepted, or --budget is used up.",
)
@click.option(
    "--budget",
    type=int,
    help="The most images made for --count-accepted.  [default: 10 times those wanted]",
)
@options.accepting
@options.batch(256, "made at once")
@click.option(
    "--labels",
    default="all",
    show_default=True,
    metavar="all|happy,sad,…",
    help="Expressions to ask for; they take turns.",
)
@click.option("--prompt", help="One prompt for all images; default a sentence drawn for each.")
@click.option("--negative-prompt", help="What the images should not show.")
@click.option(
    "--au",
    "aus",
    multiple=True,
    metavar="AU12=0.8",
    help="Intensity of an action unit, 0 to 1; repeatable. Default: drawn for each label.",
)
@click.option("--steps", type=int, help="Solver steps.  [default: the bundle's]")
@click.option("--solver", help="ddim, euler, dpmpp-2m, dpmpp-3m or unipc.  [default: the bundle's]")
@click.option(
    "--guidance", type=float, help="Guidance scale; up to 1: none.  [default: the bundle's]"
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
    help="Start from these photos of faces; each is to show every label.",
)
@click.option(
    "--layout-strength",
    type=float,
    help="How much of such a face is made anew, above 0 to 1.  [default: the bundle's; photos 0.7]",
)
@click.option(
    "--size",
    metavar="HxW",
    help="Size of the images, for a bundle that was built with --sizes.  [default: the bundle's]",
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
    help="The part of the steps that comes before.  [default: 15/35]",
)
@click.option("--semantic-every", type=int, help="Steer every so many steps.  [default: 1]")
@options.seed
@click.option(
    "--out",
    type=options.LocalPath(),
    default=Path("synfer-out"),
    show_default=True,
    metavar="DIR",
    help="Where the dataset is written; new or empty.",
)
@options.written_format
@options.running
@options.resuming
def sample(
    bundle: Path | None,
    batch: int,
    out: Path,
    format_: str,
    backend: str,
    threads: int | None,
    resume: bool,
    mix_backends: bool,
    **asked: Any,
) -> None:
    """Write a labelled dataset of faces.

    \b
    imagefolder  OUT/<label>/<index>.png and OUT/metadata.jsonl, a line an image
    webdataset   OUT/000000.tar, … with .png, .json and .cls
    parquet      OUT/data-00000.parquet, … with the image and every column

    OUT holds samples alone. The folder beside it, __OUT__, has the settings (run.json) and the
    first images of each class (contact-sheet.html). A run that was stopped goes on with the same
    command and --resume.
    """
    from synfer_rt.backends.loaded_engines import LoadedEngines
    from synfer_rt.bundle import open_bundle
    from synfer_rt.commands.resuming import as_begun, choose_computation
    from synfer_rt.data.writers import check_output, is_whole, open_output, run_file

    check_number("--batch", batch)
    check_number("--threads", threads, MOST_THREADS)
    check_resuming(resume, mix_backends)
    begun = run_file.load(out) if resume and run_file.exists(out) else None
    run = _run(as_begun(open_bundle(bundle), begun), out, **asked)
    check_output(out, run.settings(format_), resume=resume)
    lacking = None if begun is None or is_whole(out) else begun
    where, why = choose_computation(backend, run.bundle, out, lacking, mix_backends)
    for option, text in (
        ("--prompt", run.requests.prompt),
        ("--negative-prompt", run.requests.negative_prompt),
    ):
        _warn_of_unread(run.bundle, option, text or "")
    engines = LoadedEngines(run.bundle, where.backend, threads)
    if begun is None:
        engines.load(run.engines)  # what does not load leaves nothing behind
    writer = open_output(out, run.settings(format_) | where.settings(), resume=resume)
    if not writer.lacking:
        _finish_whole(run, writer, out)
        return
    if writer.done:
        note(f"Resuming: {writer.done} of {run.count} images are there.")
    note(f"{run.bundle.name} {run.bundle.version} on {why}")
    _execute(run, engines, writer, batch, out)


def _run(
    bundle: Bundle,
    out: Path,
    *,
    count: int,
    count_accepted: bool,
    budget: int | None,
    steps: int | None,
    solver: str | None,
    accept_rate: float | None,
    threshold: float | None,
    layout_from: Path | None,
    layout_strength: float | None,
    size: str | None,
    semantic_guidance: float | None,
    semantic_form: str | None,
    semantic_start: float | None,
    semantic_every: int | None,
    labels: str,
    aus: tuple[str, ...],
    **requested: Any,
) -> Run:
    """What the options ask for, with the bundle's defaults. Raises UserError for what cannot be."""
    from synfer_rt.bundle.sizes import parse_size
    from synfer_rt.jobs.sample_run import Run
    from synfer_rt.sampling import guidance
    from synfer_rt.sampling.requests import make_requests

    check_number("--count", count)
    check_number("--budget", budget)
    if size is not None:
        bundle = bundle.resized(parse_size(size))
    photos = None if layout_from is None else _photos(layout_from, bundle, out)
    requests = make_requests(
        bundle,
        labels=labels,
        aus=aus,
        photos=0 if photos is None else len(photos),
        **requested,
    )
    most, quota = _counts(count, count_accepted, budget, len(requests.labels))
    defaults = bundle.defaults
    run = Run(
        bundle,
        requests,
        most,
        defaults.solver if solver is None else solver,
        defaults.steps if steps is None else steps,
        _strength(layout_strength, requests, bundle),
        semantic=guidance.semantic_guidance(
            bundle, semantic_guidance, semantic_form, semantic_start, semantic_every
        ),
        photos=photos,
        accept_rate=accept_rate,
        threshold=threshold,
        quota=quota,
    )
    run.check()
    return run


def _photos(path: Path, bundle: Bundle, out: Path) -> Photos:
    from synfer_rt.data.datasets import refuse_inside
    from synfer_rt.sampling import inversion

    inversion.check_encoder(bundle)
    refuse_inside(out, [path])
    return inversion.read_photos(path, bundle.image_size)


def _strength(asked: float | None, requests: Requests, bundle: Bundle) -> float:
    """How much of the faces to start from is made anew; all, where there are none."""
    from synfer_rt.sampling import inversion

    if requests.bank is None and not requests.photos:
        if asked is not None:
            raise UserError(
                "--layout-strength needs a face to start from; add --layout bank or --layout-from."
            )
        return 1.0
    if asked is not None:
        return asked
    return inversion.STRENGTH if requests.photos else bundle.defaults.layout_strength


def _counts(
    count: int, count_accepted: bool, budget: int | None, labels: int
) -> tuple[int, int | None]:
    """The most images that are made, and how many accepted ones each class is to have, if any."""
    if not count_accepted:
        if budget is not None:
            raise UserError("--budget needs --count-accepted; add it, or leave out --budget.")
        return count, None
    wanted = count * labels
    most = 10 * wanted if budget is None else budget
    if most < wanted:
        raise UserError(
            f"A --budget of {most} cannot hold the {wanted} images wanted; raise it, or lower "
            "--count."
        )
    return most, count


def _finish_whole(run: Run, writer: Writer, out: Path) -> None:
    """Finish an output that lacks no sample."""
    from synfer_rt.data.contact_sheet import FILE, write_contact_sheet
    from synfer_rt.data.writers import run_file

    writer.finish()
    if not (run_file.folder(out) / FILE).exists():
        write_contact_sheet(out, run.requests.labels)
    click.echo(f"{out} already holds all {writer.done} images (synfer-rt verify reads them).")


def _execute(run: Run, engines: LoadedEngines, writer: Writer, batch: int, out: Path) -> None:
    """Make what is missing, and say what came out."""
    from synfer_rt.commands.progress import Progress
    from synfer_rt.data.contact_sheet import write_contact_sheet
    from synfer_rt.data.writers import discard_empty
    from synfer_rt.jobs.sample import execute

    count = run.count
    try:
        with going_on(
            lambda: f"Interrupted with {writer.done} of {count} images written; {RESUME}"
        ):
            starts = None if run.photos is None else _starts(run, run.photos, engines, out)
            with Progress(writer.done, count, at_most=run.quota is not None) as progress:
                summary = execute(run, engines, writer, batch, progress.update, starts)
    finally:
        if not writer.done:
            discard_empty(out)
    sheet = write_contact_sheet(out, run.requests.labels)
    _print_summary(run, summary, writer.done, out, sheet)


def _starts(run: Run, photos: Photos, engines: LoadedEngines, out: Path) -> PhotoStarts:
    """Where samples begin that show the faces of photos; says how well these come back."""
    from synfer_rt.commands.skipped import report_skipped, write_skipped
    from synfer_rt.sampling.inversion import DISTORTED, PhotoStarts
    from synfer_rt.sampling.sampler import Sampler

    skipped = list(photos.skipped.items())
    report_skipped(skipped, write_skipped(out, skipped))
    warn_of_other_images(run.bundle)
    starts = PhotoStarts(Sampler(engines), photos, run.trajectory)
    there, alone = starts.round_trip()
    note(
        f"{len(photos)} photos to start from; inverted and denoised the first come back at "
        f"{there:.1f} dB (through the VAE alone: {alone:.1f} dB)"
    )
    if alone < DISTORTED:
        note(
            f"{run.bundle.name} gives such photos back distorted, and so it will these faces; "
            "bring a bundle whose model was trained on some."
        )
    return starts


def _warn_of_unread(bundle: Bundle, option: str, text: str) -> None:
    end, words = bundle.unread(text)
    if end:
        message = f"{option} is longer than the {bundle.max_length} tokens of {bundle.name}, which"
        note(f"Warning: {message} does not read its end: {end.strip()!r}")
    if words:
        message = f"{bundle.name} does not know these words of {option}"
        note(f"Warning: {message}: {', '.join(words)}")


def _print_summary(run: Run, summary: Summary, count: int, out: Path, sheet: Path) -> None:
    from dataclasses import asdict

    from rich.table import Table

    from synfer_rt.commands.progress import console

    screen = console()
    made = "images" if summary.images == count else "made now"
    table = Table("class", made, "accepted", "", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    labelled, accepted = summary.labelled, summary.accepted
    shown = [x for x in run.bundle.classes if x in run.requests.labels or x in labelled]
    for label, images, yes in (
        *((x, labelled.get(x, 0), accepted.get(x, 0)) for x in shown),
        ("all", summary.images, sum(accepted.values())),
    ):
        share = f"{yes / images:.0%}" if images else ""
        judged = (str(yes), share) if run.bundle.annotators else ("not judged", "")
        table.add_row(label, str(images), *judged)
    screen.print(table)
    shares = ", ".join(
        f"{name} {seconds / summary.seconds:.0%}" for name, seconds in asdict(summary.times).items()
    )
    again = f"; {summary.retried} came out broken and were made again" if summary.retried else ""
    click.echo(
        f"{summary.images} images in {summary.seconds:.1f} s, "
        f"{summary.images_per_second:.1f} images/s ({shares}){again}\n"
        f"{out} holds {count} images; look at {sheet}"
    )
    if summary.missing:
        lacking = ", ".join(f"{name} {images}" for name, images in summary.missing.items())
        note(
            f"The budget of {run.count} images is used up, and accepted images are missing: "
            f"{lacking}."
        )
    if summary.broken:
        note(
            f"{summary.broken} of them are flat or not finite, and not accepted; a lower "
            "--guidance or --au-scale, more --steps or another --solver may help."
        )
