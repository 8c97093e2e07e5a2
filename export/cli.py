"""`synfer-rt build-engines`: the command of the build side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from synfer_rt.bundle.files import MANIFEST
from synfer_rt.commands.interruption import going_on, raise_if_swallowed
from synfer_rt.commands.options import LocalPath
from synfer_rt.commands.parsing import Size
from synfer_rt.commands.progress import console
from synfer_rt.errors import UserError, installing

if TYPE_CHECKING:
    from rich.table import Table

    from synfer_rt.bundle import Bundle
    from synfer_rt.export.build.entries import Built


_RESUME = "Interrupted; what is finished is kept: run the same command to go on."


@click.command("build-engines")
@click.argument("checkpoint", type=LocalPath())
@click.option(
    "--out",
    type=LocalPath(),
    help="Directory of the bundle.  [required, unless CHECKPOINT is a bundle, which is updated]",
)
@click.option(
    "--au-adapter",
    type=LocalPath(),
    help="AU adapter.  [default: CHECKPOINT/au_adapter.*, if there is one]",
)
@click.option(
    "--lora",
    "loras",
    multiple=True,
    metavar="FILE[:SCALE]",
    help="LoRA to merge into the weights, at scale 1 unless given; may be repeated.",
)
@click.option(
    "--few-step",
    metavar="KIND[:STEPS]",
    help="How a model distilled to few steps is sampled by default: lcm, tcd, hyper-sd, "
    "hyper-sd-cfg, hyper-sd-unified; none for another model.  [default: what its LoRAs and its "
    "scheduler show]",
)
@click.option(
    "--classifier",
    "classifiers",
    type=LocalPath(),
    multiple=True,
    help="ONNX expression classifier; may be repeated.  [default: CHECKPOINT/classifiers/*.onnx]",
)
@click.option(
    "--classifier-labels",
    "schemes",
    multiple=True,
    metavar="SCHEME",
    help="Label scheme of each --classifier, in the same order: for example affectnet-8, the "
    "classes in the order of the scores, such as happy,sad,-,neutral (- is a score of none), or a "
    "scheme file (.yaml, .json).",
)
@click.option(
    "--classifier-input",
    "specs",
    multiple=True,
    metavar="SPEC",
    help="Input of each --classifier: 64,grey or 224,bgr,imagenet or "
    "64,rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5; add `probabilities` if the model already ends in a "
    "softmax, and output=NAME if it has several outputs.",
)
@click.option(
    "--guide",
    type=(LocalPath(), str, str),
    metavar="FILE SCHEME SPEC",
    help="ONNX expression classifier that guides, in the form `text`, by its gradient, with its "
    "label scheme and its input; it should not be one that labels.  "
    "[default: CHECKPOINT/image_classifier]",
)
@click.option(
    "--guide-folder",
    type=LocalPath(),
    metavar="FOLDER",
    help="Folder of an image classifier that transformers saved, which guides in its place.",
)
@click.option(
    "--resolution",
    type=Size(),
    metavar="HxW",
    help="Size of the images in pixels.  [default: the checkpoint's]",
)
@click.option(
    "--sizes",
    metavar="MIN:MAX",
    help="Smallest and largest height and width in pixels, for engines of free size.  "
    "[default: one size]",
)
@click.option(
    "--cache-depth",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also build engines for `sample --cache-every`: every step computes the layers of the N "
    "outermost skip connections, the others are reused. 1 computes least; 3 are the outermost "
    "blocks of Stable Diffusion.  [default: none]",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="How weights are stored. With int8, denoisers and classifiers also compute in int8, "
    "and the other engines are fp16.",
)
@click.option(
    "--target",
    "targets",
    type=click.Choice(["onnx", "openvino", "cuda", "tensorrt", "tensorrt-rtx"]),
    multiple=True,
    help="ONNX engines are always built. openvino: every engine must be right on OpenVINO; cuda: "
    "also make a CUDA engine of each, for ONNX Runtime on NVIDIA GPUs; tensorrt, tensorrt-rtx: "
    "also compile plans for NVIDIA GPUs. May be repeated.",
)
@click.option(
    "--compute-capability",
    "capabilities",
    metavar="sm89,ampere,…",
    help="GPUs that the plans are for, or their families: turing, ampere, ada, blackwell.  "
    "[default: the GPU of this machine; for tensorrt-rtx elsewhere sm86, sm89 and sm120]",
)
@click.option(
    "--batch",
    default="1:8:32",
    show_default=True,
    metavar="MIN:OPT:MAX",
    help="Smallest, best and largest batch of the plans; ONNX engines take any batch.",
)
@click.option(
    "--tolerance",
    type=float,
    help="Largest error against PyTorch, relative to each output's largest value.  "
    "[default: 1e-4 for fp32, 2e-2 for fp16, 0.2 for int8]",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Engines built at once, each in a process of its own.",
)
@click.option(
    "--force", is_flag=True, help="Reuse nothing, and replace a bundle of another model at --out."
)
def build_engines(
    checkpoint: Path,
    out: Path | None,
    loras: tuple[str, ...],
    classifiers: tuple[Path, ...],
    schemes: tuple[str, ...],
    specs: tuple[str, ...],
    sizes: str | None,
    targets: tuple[str, ...],
    capabilities: str | None,
    batch: str,
    jobs: int,
    force: bool,
    **as_they_are: Any,
) -> None:
    """Export CHECKPOINT, a diffusers Stable Diffusion directory, to a bundle of ONNX engines.

    CHECKPOINT may also be a pipeline in ONNX, as `optimum-cli export onnx` writes it.

    The same command again updates the bundle: what did not change is not built again. If CHECKPOINT
    is a bundle, `--target cuda` adds CUDA engines to it, without PyTorch.
    """
    if (checkpoint / MANIFEST).is_file():
        _add_to_bundle(checkpoint, out, targets, jobs, force)
        return
    if out is None:
        raise click.MissingParameter(param_hint="'--out'", param_type="option")
    try:
        from synfer_rt.export import api
    except ImportError as error:
        raise UserError(f"build-engines needs {error.name}; {installing('export')}.") from error
    built: list[Built] = []
    names = [name.strip() for name in (capabilities or "").split(",") if name.strip()]
    with going_on(lambda: _RESUME):
        bundle = api.build_engines(
            checkpoint,
            out,
            lora=loras,
            classifier=classifiers,
            classifier_labels=schemes,
            classifier_input=specs,
            sizes=None if sizes is None else _parse_sizes(sizes),
            target=targets,
            compute_capability=names,
            batch=_parse_batch(batch),
            jobs=jobs,
            force=force,
            report=lambda engine: _report(engine, built),
            remark=_say,
            **as_they_are,
        )
    console().print(_table(built))
    for line in _on_openvino(bundle, out):
        _say(line)
    _say(f"{bundle.name} is in {out}, its build log in {out}.log.")


def _add_to_bundle(
    path: Path, out: Path | None, targets: tuple[str, ...], jobs: int, force: bool
) -> None:
    """Add CUDA engines to the bundle in `path`; UserError for options that need its checkpoint."""
    context = click.get_current_context()
    usable = {"checkpoint", "out", "targets", "jobs", "force"}
    others = [
        parameter.opts[-1]
        for parameter in context.command.params
        if parameter.name not in usable
        and context.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT
    ]
    if set(targets) != {"cuda"} or others:
        wrong = f"without {', '.join(others)}" if others else "alone"
        raise UserError(
            f"{path} is a bundle, to which CUDA engines can be added: give --target cuda {wrong}, "
            "or give the checkpoint to build another bundle."
        )
    try:
        from synfer_rt.export.build.finished_bundle import add_cuda_engines
    except ImportError as error:
        raise UserError(f"build-engines needs {error.name}; {installing('export')}.") from error
    built: list[Built] = []
    with going_on(lambda: _RESUME):
        bundle = add_cuda_engines(
            path,
            out,
            jobs=jobs,
            force=force,
            report=lambda engine: _report(engine, built),
            remark=_say,
        )
    console().print(_table(built))
    _say(f"{bundle.name} is in {bundle.path}, its build log in {bundle.path}.log.")


def _say(line: str) -> None:
    console().print(line, markup=False, highlight=False, soft_wrap=True)


def _report(engine: Built, built: list[Built]) -> None:
    """Say that an engine is finished, and add it to those that are `built`."""
    raise_if_swallowed()
    built.append(engine)
    how = "reused" if engine.reused else f"built and verified in {engine.seconds:.1f} s"
    _say(f"{engine.name}: {how}")


@click.command()
@click.argument("bundle", type=LocalPath(), required=False)
@click.option("--out", type=LocalPath(), required=True, help="Directory of the checkpoint.")
def unpack(bundle: Path | None, out: Path) -> None:
    """Write the checkpoint that BUNDLE was built from as a diffusers directory.

    The default is the bundle that ships with synfer-rt. Weights are those of the engines: of a
    bundle in fp16 they are rounded to float16.
    """
    from synfer_rt.bundle import open_bundle
    from synfer_rt.export.build.unpack import unpack as write_checkpoint

    opened = open_bundle(bundle)
    write_checkpoint(opened, out)
    click.echo(f"The checkpoint of {opened.name} is in {out}.")


def _on_openvino(bundle: Bundle, out: Path) -> list[str]:
    """What the user should know about the engines on OpenVINO, one line each."""
    from synfer_rt.backends.parity import sentence

    specs = bundle.engines.values()
    if any(spec.parity_openvino is None for spec in specs):
        return [
            "OpenVINO does not work here, so its results were not compared and the bundle runs on "
            f"ONNX Runtime; on a machine with OpenVINO, run `synfer-rt verify-engines {out}`."
        ]
    return [said for spec in specs if (said := sentence(spec))]


def _parse_batch(text: str) -> tuple[int, int, int]:
    try:
        least, best, most = (int(number) for number in text.split(":"))
    except ValueError:
        raise UserError(
            f"--batch must be MIN:OPT:MAX in whole numbers, such as 1:8:32, got {text!r}."
        ) from None
    return least, best, most


def _parse_sizes(text: str) -> tuple[int, int]:
    try:
        least, most = (int(number) for number in text.split(":"))
    except ValueError:
        raise UserError(
            f"--sizes must be MIN:MAX in pixels, such as 256:768, got {text!r}."
        ) from None
    return least, most


def _table(built: Sequence[Built]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("engine", "size", "precision", "max relative error", "seconds", "peak memory")
    for engine in built:
        table.add_row(
            escape(engine.name),
            f"{engine.bytes / 1e6:.2f} MB",
            engine.precision,
            "-" if engine.error is None else f"{engine.error:.1e}",
            "reused" if engine.reused else f"{engine.seconds:.1f}",
            "-" if engine.peak_bytes is None else f"{engine.peak_bytes / 1e9:.2f} GB",
        )
    return table
