"""A state as a command, as Python and as a plan, each of which makes its very image again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from synfer_rt.bundle import Bundle
from synfer_rt.engines import default_bundle
from synfer_rt.jobs.card.command import command as command_of
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.sample_settings import SampleSettings
from synfer_rt.studio.photos import Photo

OUT = "from-studio"
_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
"""Keys of TOML that need no quotes."""


def copies(settings: SampleSettings, run: Run, backend: str, photo: Photo | None) -> dict[str, str]:
    """The three texts by their names, and a `remark` on what must be there for them to run.

    `settings` are those of the state, `run` is what they come to, and `photo` the upload to start
    from. A photo is named by its file's name alone, since a browser does not tell where it lies.
    """
    given = _as_given(settings, photo)
    bundle = run.bundle
    remark = f"Same image, byte for byte, with {bundle.name} {bundle.version} on {backend}."
    if photo is not None:
        remark += f" Run it where the file {photo.name} lies."
    return {
        "command": command(run, backend, photo),
        "python": python(given, bundle, backend),
        "plan": plan(given, run.requests.labels[0]),
        "plan_command": plan_command(bundle, backend),
        "remark": remark,
    }


def command(run: Run, backend: str, photo: Photo | None) -> str:
    """The command line of the run, which names everything that decides the image."""
    settings = {**run.settings("imagefolder"), "backend": backend}
    if photo is not None and photo.aligner is not None:
        settings["align"] = photo.aligner.settings()
    line = command_of(settings)
    assert line is not None, "every setting of the page is an option"
    words = shlex.split(line)
    filled = {"--bundle": str(run.bundle.path), "--out": OUT}
    if photo is not None:
        filled["--layout-from"] = photo.name
    for option, value in filled.items():
        words[words.index(option) + 1] = value
    if _is_default(run.bundle):
        at = words.index("--bundle")
        del words[at : at + 2]
    return shlex.join(words)


def plan_command(bundle: Bundle, backend: str) -> str:
    """The command that makes a plan."""
    own = [] if _is_default(bundle) else ["--bundle", str(bundle.path)]
    words = ["synfer-rt", "sample", *own, "--plan", "plan.toml", "--backend", backend]
    return shlex.join([*words, "--out", OUT])


def python(given: Mapping[str, Any], bundle: Bundle, backend: str) -> str:
    """The call of `Model.sample`."""
    own = "" if _is_default(bundle) else f"{str(bundle.path)!r}, "
    arguments = "".join(f"    {name}={value!r},\n" for name, value in given.items())
    return (
        "import synfer_rt\n\n"
        f"model = synfer_rt.load({own}backend={backend!r})\n"
        f"(sample,) = model.sample(\n    count=1,\n{arguments})\n"
        "sample.image, sample.label, sample.probabilities\n"
    )


def plan(given: Mapping[str, Any], label: str) -> str:
    """The plan of one image of a label (docs/plans.md), in TOML 1.0, whose tables come last."""
    lines = ["count = 1"]
    for name, value in given.items():
        if name != "aus":
            # In a plan, a brace begins an attribute unless it is doubled.
            text = value.replace("{", "{{").replace("}", "}}") if name == "prompt" else value
            lines.append(f"{name} = {_value(text)}")
    if "aus" in given:
        units: Mapping[str, float] = given["aus"]
        lines += ["", f"[aus.{_key(label)}]"]
        lines += [f"{_key(unit)} = {_value(intensity)}" for unit, intensity in units.items()]
    return "\n".join(lines) + "\n"


def _as_given(settings: SampleSettings, photo: Photo | None) -> dict[str, Any]:
    """The settings as a user would write them, who has the photo's own file."""
    given: dict[str, Any] = dict(settings)
    if photo is not None:
        given["layout_from"] = photo.name
        if photo.aligner is not None:
            given |= {"align": True, "face": photo.aligner.rule}
    return given


def _value(value: Any) -> str:
    """A value of TOML, whose basic strings are those of JSON but for the control character 7F."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE.match(name) else _value(name)


def _is_default(bundle: Bundle) -> bool:
    return bundle.path.resolve() == default_bundle().resolve()
