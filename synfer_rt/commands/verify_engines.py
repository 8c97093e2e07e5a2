"""The command `synfer-rt verify-engines`: which engines OpenVINO computes as it should."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from synfer_rt.commands import options

if TYPE_CHECKING:
    from synfer_rt.bundle.engine_specs import EngineSpec


@click.command("verify-engines")
@click.argument("directory", type=options.LocalPath(), required=False)
def verify_engines(directory: Path | None) -> None:
    """Compare OpenVINO with ONNX Runtime on a bundle; default the one that ships with synfer-rt.

    The result goes into its bundle.json: `auto` then runs on OpenVINO what it computes right, and
    on ONNX Runtime what it does not. `build-engines` does the same where OpenVINO is installed.
    """
    from synfer_rt import api
    from synfer_rt.backends.parity import sentence

    def report(spec: EngineSpec) -> None:
        parity = spec.parity_openvino
        assert parity is not None
        said = sentence(spec)
        if said is None:
            said = f"{spec.name}: {parity.max_relative_error:.1e} of {parity.tolerance:.0e} allowed"
        click.echo(said)

    bundle = api.verify_engines(directory, on_engine=report)
    click.echo(f"bundle.json of {bundle.name} in {bundle.path} says so now.")
