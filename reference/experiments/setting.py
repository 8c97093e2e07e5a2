"""The options that all experiments share, and the report that each writes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import torch

from reference import classifiers, renders
from reference.evaluation.pages import machine
from reference.pictures import save_chart
from synfer_rt.backends.computation import Computation, computation
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.commands.invocation import typed
from synfer_rt.sampling.sampler import Sampler


@dataclass(frozen=True)
class Setting:
    """The options that all experiments share, and what they open."""

    bundle_path: Path | None
    directory: Path
    classifiers: Path
    out: Path
    work: Path
    backend: str
    threads: int

    @cached_property
    def bundle(self) -> Bundle:
        """The bundle under test."""
        return open_bundle(self.bundle_path)

    @cached_property
    def sampler(self) -> Sampler:
        """Its engines."""
        return Sampler.of(self.bundle, self.backend, self.threads)

    @cached_property
    def computation(self) -> Computation:
        """How its engines compute, a fact for `cache.key`."""
        return computation(self.bundle, self.sampler.backend)

    @cached_property
    def data(self) -> renders.Renders:
        """The renders, 64 pixels wide."""
        return renders.load(self.directory, 64)

    @cached_property
    def judge(self) -> torch.nn.Module:
        """The network that judges expressions."""
        return classifiers.load(self.classifiers, "judge")

    @cached_property
    def au_judge(self) -> torch.nn.Module:
        """The network that judges action units."""
        return classifiers.load(self.classifiers, "au-reader")

    def report(
        self, name: str, title: str, results: dict[str, Any], lines: Sequence[str], figure: Any
    ) -> None:
        """Write OUT/name.json, .png (a matplotlib figure) and .md, whose body is `lines`."""
        self.out.mkdir(parents=True, exist_ok=True)
        about = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "command": typed(f"python -m reference.experiments.{name}"),
            "version": self.bundle.version,
            "bundle": self.bundle.bundle_hash,
            "renders": self.data.key,
        }
        (self.out / f"{name}.json").write_text(json.dumps(about | results, indent=2) + "\n")
        save_chart(figure, self.out / f"{name}.png", dpi=110, bbox_inches="tight")
        head = [
            f"# {title}",
            "",
            f"Written by `{about['command']}` on {about['date']} "
            f"({about['machine']}); model {about['version']}, bundle `{about['bundle'][:12]}`. "
            "± is the distance to the farther end of a 95 % confidence interval.",
            "",
        ]
        text = "\n".join([*head, *lines, "", f"![{title}]({name}.png)", ""])
        (self.out / f"{name}.md").write_text(text)
        click.echo("\n".join(lines))


def options(command: Callable) -> Callable:
    """Options of all experiments, collected as the argument `setting`."""

    def collected(
        bundle_path, directory, classifiers, out, work, backend, threads, **others
    ) -> None:
        torch.set_num_threads(threads)
        setting = Setting(bundle_path, directory, classifiers, out, work, backend, threads)
        command(setting, **others)

    collected.__doc__ = command.__doc__
    collected.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for decorate in (
        click.option("--threads", default=1, show_default=True),
        click.option("--backend", default="onnxruntime-cpu", show_default=True),
        click.option(
            "--work",
            type=Path,
            default=Path("build/experiments"),
            show_default=True,
            help="Where sampled sets and trainings are kept.",
        ),
        click.option("--out", type=Path, default=Path("docs/results"), show_default=True),
        classifiers.directory_option("classifiers"),
        click.option("--renders", "directory", type=Path, required=True),
        click.option("--bundle", "bundle_path", type=Path, help="By default the shipped one."),
    ):
        collected = decorate(collected)
    return collected
