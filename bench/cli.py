"""`synfer-rt bench`: the command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from synfer_rt import ranges
from synfer_rt.commands import options
from synfer_rt.commands.doctor import RUNTIMES
from synfer_rt.commands.options import MOST_THREADS, check_number
from synfer_rt.data.writers.atomic import write_whole
from synfer_rt.errors import UserError

if TYPE_CHECKING:
    from synfer_rt.bench.measure import Case
    from synfer_rt.bundle import Bundle

FORMAT = 1
_CLONE = Path(__file__).resolve().parents[1]
_PACKAGES = ("synfer-rt", "numpy", *RUNTIMES)


@click.command()
@options.bundle
@click.option(
    "--batch",
    "batches",
    default="1,8,64,256",
    show_default=True,
    metavar="N,N,…",
    help="Images made at once.",
)
@click.option("--steps", type=int, help="Solver steps.  [default: the bundle's]")
@click.option("--solver", help="Solver.  [default: the bundle's]")
@click.option(
    "--backend",
    "backends",
    default="auto",
    show_default=True,
    metavar="NAME,NAME,…",
    help="Backend, see `doctor`; further ones are peers of the first.",
)
@click.option("--threads", type=int, help="CPU threads of each engine.  [default: all cores]")
@click.option(
    "--repeats", type=int, default=3, show_default=True, help="Visits to each system and batch."
)
@click.option(
    "--compare",
    "peers",
    type=click.Choice(["diffusers"]),
    multiple=True,
    help="Also run the same weights, solver and steps in this system.",
)
@click.option(
    "--checkpoint",
    type=options.LocalPath(),
    help="What the bundle was built from, for --compare.  [default: the clone's, of synfer-mini]",
)
@click.option("--json", "file", type=options.LocalPath(), help="Write every number there.")
@click.option("--markdown", "page", type=options.LocalPath(), help="Write the report there.")
def bench(
    bundle: Path | None,
    batches: str,
    steps: int | None,
    solver: str | None,
    backends: str,
    threads: int | None,
    repeats: int,
    peers: tuple[str, ...],
    checkpoint: Path | None,
    file: Path | None,
    page: Path | None,
) -> None:
    """Measure throughput, time per stage and memory.

    Every visit to a system at a batch size is a fresh process that loads, warms up and runs;
    visits go round all of them, --repeats times. Images start from pure noise and are written to
    the system's temporary folder.
    """
    from rich.console import Console

    from synfer_rt.backends import choose, default_threads
    from synfer_rt.bench import machine, measure, report
    from synfer_rt.bundle import open_bundle

    sizes = parse_batches(batches)
    check_number("--repeats", repeats)
    check_number("--threads", threads, MOST_THREADS)
    for option, written in (("--json", file), ("--markdown", page)):
        if written is not None:
            _check_writable(option, written)
    opened = open_bundle(bundle)
    solver = solver or opened.defaults.solver
    steps = opened.defaults.steps if steps is None else steps
    opened.trajectory(solver, steps, 1.0)  # refuses what does not fit
    chosen = [choose(name.strip(), opened) for name in backends.split(",")]
    backend, *rivals = dict.fromkeys(name for name, _ in chosen)
    threads = threads or default_threads()
    if peers:
        checkpoint = _checkpoint(opened, checkpoint, peers)
    elif checkpoint is not None:
        raise UserError("--checkpoint is what a peer loads; add --compare diffusers.")

    console, messages = Console(), Console(stderr=True)
    for _, why in chosen:
        messages.print(f"Backend: {why}", highlight=False, markup=False)

    def progress(number: int, count: int, case: Case) -> None:
        messages.print(
            f"visit {number + 1} of {count}: {case.system}, batch {case.batch}", highlight=False
        )

    setup = measure.Setup(opened.path, solver, steps, backend, threads, checkpoint)
    cases = [measure.Case(system, n) for n in sizes for system in ("synfer-rt", *rivals, *peers)]
    visits, images = measure.measure(setup, cases, repeats, progress)
    summary = measure.summarise(visits)
    result: dict[str, Any] = {
        "format": FORMAT,
        "machine": machine.describe(threads, _packages(peers)),
        "settings": {
            "command": _command(),
            "bundle": f"{opened.name} {opened.version}",
            "bundle_hash": opened.bundle_hash,
            "solver": solver,
            "steps": steps,
            "guidance": ranges.guidance(opened.defaults.guidance),
            "backend": backend,
            "threads": threads,
            "batches": sizes,
            "repeats": repeats,
            "peers": list(peers),
            "warm_up_steps": min(steps, measure.WARM_UP_STEPS),
        },
        "visits": visits,
        "summary": summary,
        "speedups": measure.speedups(summary),
        "differences": measure.differences(images),
    }
    report.show(console, result)
    if file is not None:
        _write("--json", file, json.dumps(result, indent=1) + "\n")
    if page is not None:
        _write("--markdown", page, report.page(result))


def parse_batches(text: str) -> list[int]:
    """Read `1,8,64` into sizes, in the order given, each once.

    Raises UserError for anything but whole numbers of 1 or more.
    """
    sizes: list[int] = []
    for word in text.split(","):
        if not word.strip().isdecimal() or int(word) < 1:
            raise UserError(
                f"--batch {text!r} is no list of batch sizes; write whole numbers of 1 or more, "
                "such as 1,8,64."
            )
        if int(word) not in sizes:
            sizes.append(int(word))
    return sizes


def _checkpoint(bundle: Bundle, given: Path | None, peers: tuple[str, ...]) -> Path:
    """The checkpoint that peers load, found to be the bundle's."""
    from synfer_rt.bench.peers import check

    place = Path("reference", "checkpoint", bundle.name)
    here = Path.cwd()
    roots = () if given else (_CLONE, here, *here.parents)
    found = [given] if given else [root / place for root in roots]
    checkpoint = next((path for path in found if (path / "model_index.json").is_file()), None)
    if checkpoint is None:
        remedy = "give its directory with --checkpoint"
        if given is None:
            remedy = f"run this in a clone that has {place}, or {remedy}"
        beside = f", and {given} is none" if given else ""
        raise UserError(
            f"--compare needs the checkpoint that {bundle.name} was built from{beside}; {remedy}."
        )
    for peer in peers:
        check(peer, checkpoint, bundle)
    return checkpoint


def _packages(peers: tuple[str, ...]) -> list[str]:
    from synfer_rt.bench.peers import PACKAGES

    return [*_PACKAGES, *(package for peer in peers for package in PACKAGES[peer])]


def _command() -> str:
    """How the benchmark was called, but for paths."""
    context = click.get_current_context()
    words = ["synfer-rt bench"]
    for option in context.command.params:
        name, value = option.name or "", context.params[option.name or ""]
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        for one in value if isinstance(value, tuple) else (value,):
            if given and not isinstance(one, Path):
                words.append(f"{option.opts[0]} {one}")
    return " ".join(words)


def _check_writable(option: str, file: Path) -> None:
    """A benchmark takes minutes: refuse a file that cannot be written before, not after."""
    try:
        device = file.exists() and not file.is_file()  # or a pipe, which is written as it is
        writable = not file.is_dir() and os.access(file if device else file.parent, os.W_OK)
    except OSError:  # such as a name that is too long
        writable = False
    if not writable:
        raise UserError(
            f"{file} cannot be written; give {option} a file in a directory that exists and is "
            "yours."
        )


def _write(option: str, file: Path, text: str) -> None:
    try:
        if file.exists() and not file.is_file():  # such as /dev/stdout
            file.write_bytes(text.encode())
        else:
            write_whole(file, text.encode())
    except OSError as error:
        raise UserError(
            f"{file} cannot be written ({error.strerror}); give {option} another file."
        ) from None
