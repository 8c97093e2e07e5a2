"""The command `synfer-rt`. Every heavy import is inside the command that needs it."""

from __future__ import annotations

import errno
import io
import sys
from importlib import import_module
from typing import Any

import click

from synfer_rt import __version__
from synfer_rt.commands.interruption import exit_code, interrupted_by_signals, raise_if_swallowed
from synfer_rt.commands.notes import note, noting_logs
from synfer_rt.commands.translation import in_options
from synfer_rt.errors import UserError, installing

_COMMANDS = {
    "augment": ("synfer_rt.commands.augment", "augment", "Fill up the rare classes of a dataset."),
    "bench": ("synfer_rt.bench.cli", "bench", "Measure images per second, stage by stage."),
    "build-engines": (
        "synfer_rt.export.cli",
        "build_engines",
        "Export a checkpoint to a bundle of engines (needs PyTorch).",
    ),
    "calibrate": (
        "synfer_rt.commands.calibrate",
        "calibrate",
        "Calibrate the annotators on labelled images.",
    ),
    "distill": (
        "synfer_rt.commands.distill",
        "distill",
        "Choose the images that stand best for a run.",
    ),
    "doctor": (
        "synfer_rt.commands.doctor",
        "doctor",
        "Show which backends work here, and how to get the others.",
    ),
    "evaluate": (
        "synfer_rt.commands.evaluate",
        "evaluate",
        "Measure a run as papers do: FID, accuracy, AUs, diversity, copies.",
    ),
    "export-optimum": (
        "synfer_rt.export.onnx_pipeline.command",
        "export_optimum",
        "Write a checkpoint as ONNX for optimum's pipelines (needs PyTorch).",
    ),
    "finish": (
        "synfer_rt.commands.finish",
        "finish",
        "Finish a run that was made in parts.",
    ),
    "inspect": ("synfer_rt.commands.inspect", "inspect", "Print a bundle of engines."),
    "label": ("synfer_rt.commands.label", "label", "Label existing images."),
    "plan": (
        "synfer_rt.commands.plan",
        "plan",
        "Check a plan, and print what it comes to.",
    ),
    "report": ("synfer_rt.commands.report", "report", "Write a page that shows a run."),
    "sample": ("synfer_rt.commands.sample", "sample", "Write a labelled dataset of faces."),
    "status": ("synfer_rt.commands.status", "status", "Show how far a run is."),
    "studio": (
        "synfer_rt.commands.studio",
        "studio",
        "Open a page on which a face follows sliders.",
    ),
    "train-annotator": (
        "synfer_rt.export.training.cli",
        "train_annotator",
        "Train FERAnno for a checkpoint on your photos (needs PyTorch).",
    ),
    "train-guide": (
        "synfer_rt.export.training.cli",
        "train_guide",
        "Train a guiding classifier for a checkpoint (needs PyTorch).",
    ),
    "unpack": (
        "synfer_rt.export.cli",
        "unpack",
        "Write a bundle's checkpoint as a diffusers directory (needs PyTorch).",
    ),
    "verify": (
        "synfer_rt.commands.verify",
        "verify",
        "Check that an output is complete and sound.",
    ),
    "verify-engines": (
        "synfer_rt.commands.verify_engines",
        "verify_engines",
        "Compare OpenVINO with ONNX Runtime on a bundle of engines.",
    ),
}
"""The commands: module, attribute, and help that needs no import."""

_NEED_TORCH = (
    *("bench", "build-engines", "export-optimum", "train-annotator", "train-guide", "unpack"),
)
_EXTRAS = {**dict.fromkeys(_NEED_TORCH, "export"), "studio": "studio"}
"""The extra that has the packages which a command needs beside those of the core."""


class _Refusal(click.ClickException):
    """A UserError as click shows it: `Error: …`, exit code 2."""

    exit_code = 2


def _missing(command: str, error: ModuleNotFoundError) -> Exception:
    """What to raise when `command` lacks a package; `error` itself for a module of synfer-rt."""
    package = (error.name or "").partition(".")[0]
    if package == "synfer_rt":
        return error
    remedy = installing(_EXTRAS.get(command, ""))
    return _Refusal(f"{command} needs the package {package}, which is not installed; {remedy}.")


class _Commands(click.Group):
    """The commands, each imported when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        try:
            return getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise _missing(cmd_name, error) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][2]) for name in sorted(_COMMANDS)])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # names of files need not be text
                stream.reconfigure(errors="backslashreplace")
        with interrupted_by_signals(), noting_logs():
            return super().main(*args, **kwargs)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except Exception:
            raise_if_swallowed()  # an import that a signal ends may say that something is missing
            raise

    def _translated(self, ctx: click.Context, text: str) -> str:
        """A sentence of the library in the words of the command that ran."""
        command = self.get_command(ctx, ctx.invoked_subcommand or "")
        return text if command is None else in_options(text, command.params)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._invoke(ctx)
        except UserError as error:
            raise _Refusal(self._translated(ctx, str(error))) from None
        except ModuleNotFoundError as error:
            raise _missing(ctx.invoked_subcommand or "", error) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # such as `| head`, which click knows
                raise
            name = error.filename or "The command's output, or the temporary folder (TMPDIR),"
            raise _Refusal(
                f"{name} cannot be used ({error.strerror or error}); check that it is there, that "
                "it is yours and that the disk has space."
            ) from None
        except KeyboardInterrupt as interruption:
            for text in getattr(interruption, "__notes__", ["Interrupted."]):
                note(self._translated(ctx, text))
            ctx.exit(exit_code(interruption))


def _renamed(name: str) -> str:
    """The name of an option today. Releases up to 0.1 called --bundle --engines."""
    return "bundle" if name == "engines" else name


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": _renamed},
)
@click.version_option(__version__, prog_name="synfer-rt")
def main() -> None:
    """Make labelled facial-expression images at high throughput, without PyTorch."""
