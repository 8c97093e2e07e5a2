"""`synfer-rt bench`: the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from synfer_rt.commands import options
from synfer_rt.commands.progress import console
from synfer_rt.errors import UserError

if TYPE_CHECKING:
    from synfer_rt.bench.systems import Case


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
    help="Backend, see `synfer-rt doctor`; further ones are compared with the first.",
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
    help="What the bundle was built from, for --compare.  [default: the bundle, unpacked]",
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

    Each system is visited at each batch size --repeats times, in turn. A visit is a fresh process
    that loads the system, warms it up and runs it. Images start from pure noise and are written to
    a temporary folder.
    """
    from rich.console import Console

    from synfer_rt.bench import benchmark, report

    messages = Console(stderr=True)

    def say(sentence: str) -> None:
        messages.print(sentence, highlight=False, markup=False)

    def progress(number: int, count: int, case: Case) -> None:
        say(f"visit {number + 1} of {count}: {case.system}, batch {case.batch}")

    benchmark.bench(
        bundle,
        batch=parse_batches(batches),
        steps=steps,
        solver=solver,
        backend=[name.strip() for name in backends.split(",")],
        threads=threads,
        repeats=repeats,
        compare=peers,
        checkpoint=checkpoint,
        json=file,
        markdown=page,
        progress=progress,
        remark=say,
        show=lambda result: report.show(console(), result),
        command=_command(),
    )


def parse_batches(text: str) -> list[int]:
    """Read `1,8,64` into sizes, in the order given, each once.

    Raises UserError for anything but whole numbers of at least 1.
    """
    sizes: list[int] = []
    for word in text.split(","):
        if not word.strip().isdecimal() or int(word) < 1:
            raise UserError(
                f"--batch must be whole numbers of at least 1, such as 1,8,64, got {text!r}."
            )
        if int(word) not in sizes:
            sizes.append(int(word))
    return sizes


def _command() -> str:
    """How the benchmark was called, without paths."""
    context = click.get_current_context()
    words = ["synfer-rt bench"]
    for option in context.command.params:
        name, value = option.name or "", context.params[option.name or ""]
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        for one in value if isinstance(value, tuple) else (value,):
            if given and not isinstance(one, Path):
                words.append(f"{option.opts[0]} {one}")
    return " ".join(words)
