"""`synfer-rt bench`: the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from synfer_rt.commands import options
from synfer_rt.commands.invocation import typed
from synfer_rt.commands.notes import note
from synfer_rt.commands.parsing import Size
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
    "--size", type=Size(), metavar="HxW", help="Size of the images, for a bundle of free sizes."
)
@click.option(
    "--quality",
    metavar="NAME,NAME,…",
    help="Measure these qualities of the bundle as well, with their own defaults.",
)
@click.option(
    "--variant",
    "variants",
    metavar="SETTING=VALUE,…",
    multiple=True,
    help="Measure synfer-rt with these settings of `sample` changed as well, such as "
    "guidance=1,steps=4; may be repeated.",
)
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
    metavar="NAME,NAME,…",
    multiple=True,
    help="Also run the same weights, solver and steps in these systems: diffusers (float16 on a "
    "GPU, float32 on a CPU), diffusers-fp16, diffusers-bf16; with torch.compile "
    "diffusers-compiled, diffusers-fp16-compiled, diffusers-bf16-compiled; in environments of "
    "their own optimum-intel, openvino-genai, optimum-onnx. synfer-rt==VERSION and "
    "synfer-rt=PYTHON are other releases with their own bundle and defaults; may be repeated.",
)
@click.option(
    "--set-up",
    is_flag=True,
    help="Make the environments that --compare needs: a virtual environment each, in the user's "
    "cache, filled by pip.",
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
    help=f"Write every number there, after each visit.  [default with --quick: {_QUICK}.json]",
)
@click.option("--resume", is_flag=True, help="Go on with what an interrupted run left in --json.")
@click.option(
    "--estimate",
    is_flag=True,
    help="Say how long this would take, from the peak and the FLOPs, and measure nothing else.",
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
    quality: str | None,
    variants: tuple[str, ...],
    estimate: bool,
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

    names = [name for given in peers for name in _words(given)]
    asked: dict[str, Any] = {
        "quick": quick,
        "batch": None if batches is None else parse_batches(batches),
        "backend": _words(backends),
        "compare": names or None,
        "quality": _words(quality or ""),
        "variants": [parse_settings(text) for text in variants],
        "remark": note,
        **settings,
    }
    if estimate:
        del asked["resume"]
        for sentence in benchmark.estimate(bundle, **asked):
            click.echo(sentence)
        return
    file, page = (
        Path(f"{_QUICK}.{kind}") if quick and path is None else path
        for path, kind in ((file, "json"), (page, "md"))
    )
    result = benchmark.bench(
        bundle,
        json=file,
        markdown=page,
        progress=lambda number, count, section: note(f"{number + 1} of {count}: {section}"),
        show=lambda result: report.show(console(), result),
        command=typed("synfer-rt bench"),
        **asked,
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


def parse_settings(text: str) -> dict[str, Any]:
    """Read `steps=4,guidance-interval=0.2:5` into settings of `sample` by their names.

    Values are numbers where they can be read as such, and pairs of them where a colon is between.
    Raises UserError for anything without a name and a value.
    """
    settings: dict[str, Any] = {}
    for word in _words(text):
        name, equals, value = word.partition("=")
        if not name.strip() or not equals or not value.strip():
            raise UserError(
                f"--variant must be settings with values, such as steps=4,guidance=1, got {text!r}."
            )
        parts = [_value(part) for part in value.strip().split(":")]
        settings[name.strip().replace("-", "_")] = parts[0] if len(parts) == 1 else tuple(parts)
    return settings


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
