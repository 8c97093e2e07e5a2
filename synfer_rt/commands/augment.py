"""The command `synfer-rt augment`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synfer_rt.bundle.sizes import format_size
from synfer_rt.commands import options
from synfer_rt.commands.annotators import warn_of_other_images
from synfer_rt.commands.interruption import RESUME, going_on
from synfer_rt.commands.notes import note
from synfer_rt.commands.options import MOST_THREADS, check_number, check_resuming
from synfer_rt.commands.skipped import report_problems, report_skipped, write_skipped
from synfer_rt.data.datasets import Item, Skipped
from synfer_rt.data.datasets.items import load
from synfer_rt.data.images import size_of
from synfer_rt.errors import UserError

if TYPE_CHECKING:
    from synfer_rt.bundle import Bundle
    from synfer_rt.data.datasets import Dataset
    from synfer_rt.jobs.augment import Augmenter
    from synfer_rt.jobs.augmentation import Augmentation

_READERS = 4
_LOOKED_AT = 16
"""Originals whose size is compared with the additions'."""


def usable(dataset: Dataset, size: tuple[int, int]) -> Dataset:
    """The dataset without what has no label or cannot be decoded; that is among its `skipped`.

    Raises UserError when nothing is left, and for several splits in one, or one and labelled images
    of none: adding to a test set would make its score meaningless.
    """
    splits = sorted({item.split for item in dataset.items if item.split})
    loose = [item.name for item in dataset.items if not item.split and item.label is not None]
    if len(splits) > 1 or (splits and loose):
        beside = f", and images of none ({loose[0]})" if loose else ""
        raise UserError(
            f"{dataset.path} has the splits {', '.join(splits)}{beside}; say which to augment with "
            "--split."
        )

    def problem(item: Item) -> str | None:
        if item.label is None:
            return item.problem or "it has no label"
        image = load(item, size)
        return image if isinstance(image, str) else None

    with ThreadPoolExecutor(_READERS, "read") as pool:
        problems = list(pool.map(problem, dataset.items))
    good = [item for item, why in zip(dataset.items, problems, strict=True) if why is None]
    bad = [Skipped(i.name, why) for i, why in zip(dataset.items, problems, strict=True) if why]
    if not good:
        raise UserError(
            f"{dataset.path} has no labelled image that can be read ({bad[0].name}: "
            f"{bad[0].reason}); see --format and --label-scheme."
        )
    return replace(dataset, items=tuple(good), skipped=(*dataset.skipped, *bad))


def _other_size(items: Sequence[Item], size: tuple[int, int]) -> bool:
    """Whether one of a few images, from first to last, is of another size than (H, W)."""
    some = items[:: -(-len(items) // _LOOKED_AT)]
    try:
        return any(size_of(item.read()) != size for item in some)
    except (OSError, ValueError, UserError):  # gone since it was read: the run will say so
        return False


def _is_addition(record: Mapping[str, Any]) -> bool:
    return record["origin"] == "augmented"


@click.command()
@click.argument("dataset", type=options.LocalPath())
@click.option(
    "--out",
    type=options.LocalPath(),
    required=True,
    metavar="DIR",
    help="Where originals and additions are written; new or empty.",
)
@click.option(
    "--balance",
    default="max",
    show_default=True,
    metavar="max|COUNT|FILE",
    help="Images a class shall have: as the largest, a number, or a JSON file of numbers.",
)
@click.option("--noise-scale", default=8.0, show_default=True, help="Noise around the posterior.")
@click.option(
    "--repair-steps", default=4, show_default=True, help="Diffusion steps afterwards; 0 for none."
)
@click.option(
    "--repair-strength", default=0.5, show_default=True, help="How much these steps make anew."
)
@click.option("--attempts", default=4, show_default=True, help="Tries until the check agrees.")
@click.option(
    "--decode-originals",
    is_flag=True,
    help="Pass the originals through the VAE too, in the bundle's size.",
)
@options.seed
@options.dataset_format("--input-format", "input_format")
@options.written_format
@options.bundle
@options.batch(64, "made at once")
@options.running
@options.resuming
def augment(
    dataset: Path,
    out: Path,
    balance: str,
    input_format: str,
    label_scheme: str | None,
    split: str | None,
    format_: str,
    bundle: Path | None,
    batch: int,
    backend: str,
    threads: int | None,
    resume: bool,
    mix_backends: bool,
    **how: Any,
) -> None:
    """Fill up the rare classes of a labelled dataset with varied copies of their own images.

    OUT gets every original that can be read, in its own size unless --decode-originals, and the
    additions in the bundle's, grey where they are made from grey ones; metadata says of each which
    it is (origin), what it was made from (source) and whether the vote and most annotators see its
    class in it (accepted). The input is only read. In the folder beside OUT, __OUT__, skipped.jsonl
    lists what of it is left out, and contact-sheet.html shows the first additions of each class.
    """
    from synfer_rt.bundle import open_bundle
    from synfer_rt.commands.progress import Progress
    from synfer_rt.commands.resuming import as_begun, choose_computation
    from synfer_rt.data.datasets import read_dataset, refuse_inside
    from synfer_rt.data.writers import is_whole, open_output, run_file
    from synfer_rt.jobs.augment import Augmenter, execute
    from synfer_rt.jobs.augmentation import Augmentation
    from synfer_rt.jobs.balance import additions, targets
    from synfer_rt.sampling.sampler import Sampler

    check_number("--batch", batch)
    check_number("--threads", threads, MOST_THREADS)
    check_resuming(resume, mix_backends)
    begun = run_file.load(out) if resume and run_file.exists(out) else None
    opened = as_begun(open_bundle(bundle), begun)
    refuse_inside(out, [dataset])
    whole = read_dataset(dataset, input_format, label_scheme, split)
    source = usable(whole, opened.image_size)
    counts = source.counts()
    labels = additions(counts, targets(counts, balance))
    job = Augmentation(source.items, labels, **how)
    lacking = None if begun is None or is_whole(out) else begun
    where, _ = choose_computation(backend, opened, out, lacking, mix_backends)
    augmenter = Augmenter(job, Sampler.of(opened, where.backend, threads))
    settings = augmenter.settings(format_) | {"dataset": source.digest, "balance": balance}
    settings |= where.settings()
    writer = open_output(out, settings, resume=resume)
    if labels:
        _warn(job, opened)
    skipped = [(entry.name, entry.reason) for entry in source.skipped]
    listed = write_skipped(out, skipped)
    with (
        going_on(lambda: f"Interrupted with {writer.done} of {job.count} images written; {RESUME}"),
        Progress(writer.done, job.count) as progress,
    ):
        execute(augmenter, writer, batch, progress.update)
    _print_summary(augmenter, counts, out)
    _report_labels(whole)
    report_skipped(skipped, listed)


def _warn(job: Augmentation, bundle: Bundle) -> None:
    """Say in what the additions may differ from the originals."""
    warn_of_other_images(bundle)
    if not job.decode_originals and _other_size(job.originals, bundle.image_size):
        note(
            f"The additions are images of {format_size(bundle.image_size)}, not all originals are: "
            "a classifier may learn that instead of the class. With --decode-originals they are."
        )


def _print_summary(augmenter: Augmenter, counts: Mapping[str, int], out: Path) -> None:
    """Say how each class was filled up, of which there were `counts`."""
    from synfer_rt.data.contact_sheet import write_contact_sheet
    from synfer_rt.data.writers import read

    job, classes = augmenter.job, augmenter.bundle.classes
    accepted = Counter(
        record["label"] for record, _ in read(out) if _is_addition(record) and record["accepted"]
    )
    added = Counter(job.additions)
    for name in classes:
        if counts.get(name):
            click.echo(f"{name}: {counts[name]} + {added[name]}, accepted {accepted[name]}")
    look = ""
    if job.additions:
        filled = [name for name in classes if added[name]]
        look = f"; look at {write_contact_sheet(out, filled, _is_addition)}"
    click.echo(f"{job.count} images in {out}{look}")
    if augmenter.broken:
        note(
            f"{augmenter.broken} additions are flat or not finite, and not accepted; a lower "
            "--noise-scale or more --repair-steps may help."
        )


def _report_labels(dataset: Dataset) -> None:
    """Say which labels of a dataset were not understood."""
    problems = Counter(item.problem or "" for item in dataset.items if item.not_understood)
    given = sum(item.written is not None for item in dataset.items)
    report_problems(problems, given, "left out")
