"""`synfer-rt bench`: the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from synfer_rt.commands import options
from synfer_rt.commands.notes import note
from synfer_rt.commands.progress import console
from synfer_rt.errors import UserError

_QUICK = "synfer-rt-bench"
"""The files of a quick benchmark, in the current folder, without their endings."""


@click.command()
@options.bundle
@click.option(
    "--quick",
    is_flag=True,
    help="A page in under five minutes: fewer batch sizes, and diffusers if it is installed.",
)
@click.option(
    "--seconds",
    type=float,
    help="Time limit; what does not fit is left out.  [default: none, 270 with --quick]",
)
@click.option(
    "--batch",
    "batches",
    metavar="N,N,…",
    help="Images made at once.  [default: 1,8,64,256; with --quick 1,64,256 on a GPU, 1,16 on a "
    "CPU]",
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
    "--repeats",
    type=int,
    help="Visits to each system and batch.  [default: 3; with --quick 2, if there is time]",
)
@click.option(
    "--compare",
    "peers",
    metavar="NAME",
    multiple=True,
    help="Also run the same weights, solver and steps in this system: diffusers (float16 on a GPU, "
    "float32 on a CPU), diffusers-fp16, diffusers-bf16, and with torch.compile "
    "diffusers-fp16-compiled, diffusers-bf16-compiled; may be repeated.",
)
@click.option(
    "--checkpoint",
    type=options.LocalPath(),
    help="What the bundle was built from, for --compare.  [default: the bundle, unpacked]",
)
@click.option(
    "--json",
    "file",
    type=options.LocalPath(),
    help=f"Write every number there.  [default with --quick: {_QUICK}.json]",
)
@click.option(
    "--markdown",
    "page",
    type=options.LocalPath(),
    help=f"Write the report there.  [default with --quick: {_QUICK}.md]",
)
def bench(
    bundle: Path | None,
    quick: bool,
    batches: str | None,
    backends: str,
    peers: tuple[str, ...],
    file: Path | None,
    page: Path | None,
    **settings: Any,
) -> None:
    """Measure throughput, time per stage, memory and FLOP/s.

    Each system is visited at each batch size --repeats times, in turn. A visit is a fresh process
    that loads the system, warms it up and makes many batches. Images start from pure noise and are
    written to a temporary folder. On an NVIDIA GPU its busy share, memory, power and energy are
    read too. What fails is reported, ends nothing else, and makes the exit code 1.

    \b
    synfer-rt bench --quick
        writes synfer-rt-bench.md, a page to put into an issue, and synfer-rt-bench.json.
    """
    from synfer_rt.bench import benchmark, report

    file, page = (
        Path(f"{_QUICK}.{kind}") if quick and path is None else path
        for path, kind in ((file, "json"), (page, "md"))
    )
    result = benchmark.bench(
        bundle,
        quick=quick,
        batch=None if batches is None else parse_batches(batches),
        backend=[name.strip() for name in backends.split(",")],
        compare=peers or None,
        json=file,
        markdown=page,
        progress=lambda number, count, section: note(f"{number + 1} of {count}: {section}"),
        remark=note,
        show=lambda result: report.show(console(), result),
        command=_command(),
        **settings,
    )
    if quick:
        note(f"The report is in {page}, every number in {file}.")
    if result["failed"]:
        click.get_current_context().exit(1)


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
                said = f"{one:g}" if isinstance(one, float) else str(one)
                words.append(option.opts[0] if one is True else f"{option.opts[0]} {said}")
    return " ".join(words)
