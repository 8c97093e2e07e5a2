"""The command `synfer-rt inspect`: what is in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from synfer_rt.commands import options
from synfer_rt.commands.progress import console
from synfer_rt.commands.quantities import size

if TYPE_CHECKING:
    from synfer_rt.bundle import Bundle
    from synfer_rt.bundle.plans import PlanSpec


@click.command()
@click.argument("directory", type=options.LocalPath(), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest, path and hash as JSON.")
def inspect(directory: Path | None, as_json: bool) -> None:
    """Print a bundle of engines; default the one that ships with synfer-rt."""
    import json

    from synfer_rt.bundle import open_bundle

    bundle = open_bundle(directory)
    if as_json:
        facts = {"path": str(bundle.path), "bundle": bundle.bundle_hash, **bundle.manifest}
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        _print_bundle(bundle)


def _print_bundle(bundle: Bundle) -> None:
    from rich.table import Table

    from synfer_rt.bundle.sizes import format_size

    files = bundle.manifest["files"]
    schedule, vocabulary = bundle.manifest["schedule"], bundle.manifest["au_vocabulary"]
    named = vocabulary if isinstance(vocabulary, str) else "its own vocabulary"
    defaults = bundle.manifest["defaults"]
    screen = console()

    facts = Table(show_header=False, box=None)
    for name, value in (
        ("bundle", f"{bundle.name} {bundle.version}"),
        ("", bundle.description),
        ("licence", bundle.licence),
        ("path", bundle.path),
        ("hash", bundle.bundle_hash),
        ("size", size(sum(entry["bytes"] for entry in files.values()))),
        ("images", f"{format_size(bundle.image_size)} from latents {list(bundle.latent.shape)}"),
        ("sizes", bundle.sizes or "no other"),
        ("classes", f"{bundle.label_scheme}: {', '.join(bundle.classes)}"),
        ("annotators", _annotators(bundle)),
        ("action units", f"{named}, {len(bundle.au_names)}" if bundle.au_names else "none"),
        ("plans", "; ".join(map(_plans, filter(None, bundle.plans.values()))) or "none"),
        ("CUDA engines", _cuda_engines(bundle) or "none"),
        ("layout bank", f"{bundle.layout_count} faces" if bundle.layout_count else "none"),
        ("predicts", bundle.prediction_type),
        ("schedule", ", ".join(f"{name} {value}" for name, value in schedule.items())),
        ("qualities", _qualities(bundle)),
        ("defaults", ", ".join(f"{name} {value!r}" for name, value in defaults.items())),
    ):
        facts.add_row(name, str(value))
    screen.print(facts, markup=False)

    table = Table("engine", "size", "precision", "opset", "inputs", "outputs", "parity", box=None)
    for name, engine in bundle.engines.items():
        sizes = [entry["bytes"] for file, entry in files.items() if file.startswith(engine.file)]
        parity = engine.parity
        measured = (
            f"{parity['max_relative_error']:.1e} of {parity['tolerance']:.0e}"
            if parity
            else "unknown"
        )
        if (there := engine.parity_openvino) is not None:
            error, most = there.max_relative_error, there.tolerance
            measured += f"\nOpenVINO {error:.1e} of {most:.0e}" if there.holds else "\nnot OpenVINO"
        if (fused := bundle.cuda.get(name)) is not None:
            error, most = (fused.parity[key] for key in ("max_relative_error", "tolerance"))
            measured += f"\nCUDA {fused.precision} {error:.1e} of {most:.0e}"
        shapes = [
            "\n".join(f"{tensor.name} {_shape(tensor.shape)}" for tensor in tensors)
            for tensors in (engine.inputs, engine.outputs)
        ]
        table.add_row(
            name, size(sum(sizes)), engine.precision, str(engine.opset), *shapes, measured
        )
    screen.print(table, markup=False)


def _shape(shape: tuple[int | str, ...]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"


def _plans(plans: Mapping[str, PlanSpec]) -> str:
    """What the plans of one target (one or more) are for."""
    target = next(iter(plans.values())).target
    versions = ", ".join(sorted({plan.version for plan in plans.values()}))
    gpus = ", ".join(sorted({gpu for plan in plans.values() for gpu in plan.compute_capabilities}))
    return f"{target} {versions} for {gpus} ({', '.join(plans)})"


def _cuda_engines(bundle: Bundle) -> str:
    """The engines that have CUDA engines, by the precision that these compute in."""
    by_precision: dict[str, list[str]] = {}
    for name, spec in bundle.cuda.items():
        by_precision.setdefault(spec.precision, []).append(name)
    return "; ".join(f"{kind} ({', '.join(names)})" for kind, names in by_precision.items())


def _qualities(bundle: Bundle) -> str:
    """The qualities of a bundle, with what the student of "fast" was distilled for."""
    student = bundle.distilled
    if student is None:
        return ", ".join(bundle.qualities)
    strengths = " or ".join(f"{strength:g}" for strength in student.strengths)
    return (
        f"best; fast: {student.denoiser}, {student.steps} steps of {student.solver} from strength "
        f"{strengths}, guidance {student.guidance:g} built in"
    )


def _annotators(bundle: Bundle) -> str:
    known = f"; they know {bundle.annotators_know} only" if bundle.annotators_know else ""
    names = ", ".join(head.annotator for _, head in bundle.heads)
    read = f"; {' and '.join(bundle.dimensions)} are read, too" if bundle.dimensions else ""
    return f"{names}{read}{known}" if names else "none"
